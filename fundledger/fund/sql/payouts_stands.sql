-- The recorded end of an order, or its state if no end is recorded. $1 order, $2 interval for which an absent payout
-- may still be in transit. Rows: one. Locks: none.
SELECT coalesce(o.ending, o.state) AS stands, p.called_at < clock_timestamp() - $2::interval AS past_doubt
FROM fund.orders o JOIN fund.payouts p ON p.order_id = o.id
WHERE o.id = $1::uuid
