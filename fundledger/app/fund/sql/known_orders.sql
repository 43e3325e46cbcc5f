-- Which of these orders are there. $1: their ids. Rows: id. Locks: none.
SELECT id FROM fund.orders WHERE id = ANY($1::uuid[])
