-- Payments whose refunds, chargebacks and disputes together exceed the amount of the payment. Refunds that bounced, disputes that
-- are won, and what won disputes brought back, do not count. Rows: the first 100; `total` is the number of all. Locks: none.
WITH back AS (
    SELECT o.of_order AS id, o.amount FROM fund.orders o
    WHERE o.kind IN ('refund', 'chargeback', 'dispute') AND o.state NOT IN ('refused', 'bounced', 'won')
    UNION ALL
    SELECT c.of_order, -o.amount FROM fund.orders o JOIN fund.orders c ON c.id = o.of_order
    WHERE o.kind = 'dispute_won' AND o.state <> 'refused'
)
SELECT b.id, p.amount, sum(b.amount)::text AS back, count(*) OVER () AS total
FROM back b JOIN fund.orders p ON p.id = b.id
GROUP BY b.id, p.amount HAVING sum(b.amount) > p.amount ORDER BY b.id LIMIT 100
