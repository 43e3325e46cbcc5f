-- Check, right before money is sent, that the order has not ended. $1 order. Rows: one, none if the order has ended
-- meanwhile. Locks: none.
SELECT o.id FROM fund.orders o WHERE o.id = $1::uuid AND o.state IN ('sent', 'unknown') AND o.ending IS NULL
