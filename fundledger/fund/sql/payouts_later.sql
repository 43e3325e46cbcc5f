-- When a payout is asked after again. $1 order, $2 interval from now, $3 the channel's reference, if it told one. Rows: none.
-- Locks: its row.
UPDATE fund.payouts p
SET due_at = clock_timestamp() + $2::interval, channel_ref = coalesce($3::text, p.channel_ref)
WHERE p.order_id = $1::uuid AND p.outcome IS NULL
