-- Check that an order has not ended. The caller executes this immediately before it sends money. $1 order. Rows: one,
-- or none if the order has ended meanwhile. Locks: none.
SELECT o.id FROM fund.orders o WHERE o.id = $1::uuid AND o.state IN ('sent', 'unknown') AND o.ending IS NULL
