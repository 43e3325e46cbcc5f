-- The highest seq of an order. Rows: one; null if there are no orders. Locks: none.
SELECT max(o.seq) FROM fund.orders o
