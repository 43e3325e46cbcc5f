-- Payments of which more came back than was paid. Rows: the first 100. Locks: none.
SELECT o.of_order AS id, p.amount, sum(o.amount)::text AS back
FROM fund.orders o JOIN fund.orders p ON p.id = o.of_order
WHERE o.kind IN ('refund', 'chargeback') AND o.state <> 'refused'
GROUP BY o.of_order, p.amount HAVING sum(o.amount) > p.amount LIMIT 100
