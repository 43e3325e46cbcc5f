-- Merchants that are settled by themselves today, have something pending, and were not settled so today. $1 which calendars
-- are due, $2 the number of the settlement, $3 how many. Rows: so many, by id. Locks: none.
SELECT m.id
FROM fund.merchants m
WHERE m.settlement = ANY ($1::text[])
  AND EXISTS (SELECT FROM fund.payments p WHERE p.merchant = m.id AND p.settled + p.refunded_unsettled < p.amount AND NOT p.reversed)
  AND NOT EXISTS (SELECT FROM fund.orders o WHERE o.merchant = m.id AND o.kind = 'settlement' AND o.order_no = $2)
ORDER BY m.id LIMIT $3
