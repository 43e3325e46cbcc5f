-- Which of these orders exist. $1: order ids. Rows: one per order that exists: id. Locks: none.
SELECT id FROM fund.orders WHERE id = ANY($1::uuid[])
