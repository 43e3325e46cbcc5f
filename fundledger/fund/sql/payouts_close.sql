-- What the channel says is final: it is not asked again. $1 order, $2 paid, bounced or absent, $3 its reference. Rows: none.
-- Locks: the payout's row.
UPDATE fund.payouts p
SET due_at = NULL, outcome = $2::text, channel_ref = coalesce($3::text, p.channel_ref)
WHERE p.order_id = $1::uuid AND p.outcome IS NULL
