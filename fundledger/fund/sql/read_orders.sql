-- Orders. $1 ids. Rows: one per order that exists. Locks: none.
SELECT {order}
FROM fund.orders o WHERE o.id = ANY ($1::uuid[])
