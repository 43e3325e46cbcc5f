-- Days on which another amount is counted than was withdrawn. Rows: the first 100 that differ. Locks: none.
WITH withdrawn AS (
    SELECT o.merchant, (o.created_at AT TIME ZONE 'UTC')::date AS day, sum(o.amount) AS amount
    FROM fund.orders o WHERE o.kind = 'withdrawal' AND o.state NOT IN ('refused', 'bounced') GROUP BY 1, 2
)
SELECT merchant, day, coalesce(w.amount, 0)::text AS expected, coalesce(d.amount, 0)::text AS actual
FROM withdrawn w FULL JOIN fund.withdrawal_days d USING (merchant, day)
WHERE coalesce(w.amount, 0) <> coalesce(d.amount, 0) LIMIT 100
