-- All orders, ordered by id. Rows: one per order. Locks: none.
SELECT {order}
FROM fund.orders o ORDER BY o.id
