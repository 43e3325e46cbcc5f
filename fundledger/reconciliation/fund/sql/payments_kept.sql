-- Payments that are settled later, refunded, charged back or disputed, and have no row in fund.payments. Rows: the first 100;
-- `total` is the number of all. Locks: none.
SELECT x.id, min(x.why) AS why, count(*) OVER () AS total
FROM (
    SELECT o.id, 'it is settled later' AS why FROM fund.orders o
    WHERE o.kind = 'payment' AND o.settle = 'later' AND o.state = 'posted'
    UNION ALL
    SELECT o.of_order, 'it has a ' || o.kind FROM fund.orders o
    WHERE o.kind IN ('refund', 'chargeback', 'dispute') AND o.state <> 'refused'
    UNION ALL
    SELECT s.payment, 'it is settled' FROM fund.settled_payments s
    JOIN fund.orders o ON o.id = s.settlement AND o.state <> 'refused'
) AS x
LEFT JOIN fund.payments p ON p.order_id = x.id WHERE p.order_id IS NULL GROUP BY x.id ORDER BY x.id LIMIT 100
