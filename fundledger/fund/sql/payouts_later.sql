-- Schedule the next poll of a payout. $1 order, $2 interval from now until the poll, $3 the channel's reference or
-- null, $4 key version of the MAC, $5 MAC. Rows: none. Locks: the row of the payout.
UPDATE fund.payouts p
SET due_at = clock_timestamp() + $2::interval, channel_ref = $3::text, mac_key = $4, mac = $5
WHERE p.order_id = $1::uuid AND p.outcome IS NULL
