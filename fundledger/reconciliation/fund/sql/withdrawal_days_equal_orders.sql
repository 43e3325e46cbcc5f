-- Days of merchants whose withdrawn amount differs from the sum of the withdrawals. Rows: the first 100; `total` is the
-- number of all. Locks: none.
WITH withdrawn AS (
    SELECT o.merchant, (o.created_at AT TIME ZONE 'UTC')::date AS day, sum(o.amount) AS amount
    FROM fund.orders o WHERE o.kind = 'withdrawal' AND o.state NOT IN ('refused', 'bounced') GROUP BY 1, 2
)
SELECT merchant, day::text AS day, coalesce(w.amount, 0)::text AS expected, coalesce(d.amount, 0)::text AS actual,
       count(*) OVER () AS total
FROM withdrawn w FULL JOIN fund.withdrawal_days d USING (merchant, day)
WHERE coalesce(w.amount, 0) <> coalesce(d.amount, 0)
ORDER BY merchant, day LIMIT 100
