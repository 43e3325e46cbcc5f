-- Days of merchants whose withdrawn amount differs from the sum of the withdrawals. $1 days, in order, $2 their beginnings, in
-- parallel (both as text). Rows: the first 100; `total` is the number of all. Locks: none.
WITH withdrawn AS (
    SELECT o.merchant, ($1::text[])[width_bucket(o.created_at, ($2::text[])::timestamptz[])] AS day, sum(o.amount) AS amount
    FROM fund.orders o WHERE o.kind = 'withdrawal' AND o.state NOT IN ('refused', 'bounced') GROUP BY 1, 2
), recorded AS (
    SELECT d.merchant, d.day::text AS day, d.amount FROM fund.withdrawal_days d
)
SELECT merchant, coalesce(day, 'an unknown day') AS day, coalesce(w.amount, 0)::text AS expected, coalesce(d.amount, 0)::text AS actual,
       count(*) OVER () AS total
FROM withdrawn w FULL JOIN recorded d USING (merchant, day)
WHERE coalesce(w.amount, 0) <> coalesce(d.amount, 0)
ORDER BY merchant, day LIMIT 100
