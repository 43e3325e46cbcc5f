-- The highest seq of an order. Rows: one, null without orders. Locks: none.
SELECT max(o.seq) FROM fund.orders o
