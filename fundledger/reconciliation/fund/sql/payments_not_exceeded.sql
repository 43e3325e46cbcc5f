-- Payments whose refunds and chargebacks together exceed the amount of the payment. Rows: the first 100; `total` is the
-- number of all. Locks: none.
SELECT o.of_order AS id, p.amount, sum(o.amount)::text AS back, count(*) OVER () AS total
FROM fund.orders o JOIN fund.orders p ON p.id = o.of_order
WHERE o.kind IN ('refund', 'chargeback') AND o.state NOT IN ('refused', 'bounced')
GROUP BY o.of_order, p.amount HAVING sum(o.amount) > p.amount ORDER BY o.of_order LIMIT 100
