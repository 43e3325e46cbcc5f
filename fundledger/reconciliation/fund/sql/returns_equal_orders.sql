-- Withdrawals whose returned amount differs from the sum of their payout returns. A payout return does not count if a posted
-- reversal reverses it. Rows: the first 100; `total` is the number of all. Locks: none.
WITH returns AS (
    SELECT o.of_order, sum(o.amount) AS amount
    FROM fund.orders o LEFT JOIN fund.orders r ON r.of_order = o.id AND r.kind = 'reversal' AND r.state = 'posted'
    WHERE o.kind = 'payout_return' AND o.state <> 'refused' AND r.id IS NULL
    GROUP BY o.of_order
)
SELECT w.id, coalesce(r.amount, 0)::text AS expected, w.returned::text AS actual, count(*) OVER () AS total
FROM fund.orders w LEFT JOIN returns r ON r.of_order = w.id
WHERE w.returned IS DISTINCT FROM coalesce(r.amount, 0)
ORDER BY w.id LIMIT 100
