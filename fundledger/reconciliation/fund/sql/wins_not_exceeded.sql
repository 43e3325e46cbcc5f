-- Chargebacks and lost disputes of which more came back than they took. Rows: the first 100; `total` is the number of all.
-- Locks: none.
SELECT c.id, c.kind, c.amount, sum(o.amount)::text AS won, count(*) OVER () AS total
FROM fund.orders o JOIN fund.orders c ON c.id = o.of_order
WHERE o.kind = 'dispute_won' AND o.state <> 'refused'
GROUP BY c.id, c.kind, c.amount HAVING sum(o.amount) > c.amount ORDER BY c.id LIMIT 100
