-- Read a sent withdrawal or refund that has not ended. $1 order. Rows: the order, or none if it has ended meanwhile. Locks: none.
SELECT {order}
FROM fund.orders o WHERE o.id = $1::uuid AND o.state IN ('sent', 'unknown') AND o.ending IS NULL
