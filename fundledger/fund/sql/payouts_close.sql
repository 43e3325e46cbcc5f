-- Record the final outcome of a payout, so that the payout is not polled again. $1 order, $2 paid, bounced or absent,
-- $3 the channel's reference, $4 key version of the MAC, $5 MAC. Rows: none. Locks: the row of the payout.
UPDATE fund.payouts p
SET due_at = NULL, outcome = $2::text, channel_ref = $3::text, mac_key = $4, mac = $5
WHERE p.order_id = $1::uuid AND p.outcome IS NULL
