-- Days that are closed wrongly. There are three cases: the sums of a closed day differ from its orders, a day has sums
-- but was not closed, or a day was not closed although an earlier and a later day were closed. The sums are compared
-- over all states, because the state of an order may have changed after its day was closed. Rows: the first 100;
-- `total` is the number of all. Locks: none.
WITH posted AS (
    SELECT d.day, o.merchant, o.kind, o.currency, count(*)::numeric AS orders, sum(o.amount) AS amount, sum(o.fee) AS fee, sum(o.tax) AS tax
    FROM fund.day_ends d
    JOIN fund.orders o ON o.posted_at >= d.day::timestamp AT TIME ZONE 'UTC' AND o.posted_at < (d.day + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY d.day, o.merchant, o.kind, o.currency
), summed AS (
    SELECT s.day, s.merchant, s.kind, s.currency, sum(s.orders) AS orders, sum(s.amount) AS amount, sum(s.fee) AS fee, sum(s.tax) AS tax
    FROM fund.day_sums s GROUP BY s.day, s.merchant, s.kind, s.currency
), differences AS (
    SELECT coalesce(p.day, s.day)::text AS day,
           format('%s of %s in %s', coalesce(p.kind, s.kind), coalesce(p.merchant, s.merchant), coalesce(p.currency, s.currency)) AS what,
           format('%s orders, amount %s, fee %s, tax %s', p.orders, p.amount, p.fee, p.tax) AS expected,
           format('%s orders, amount %s, fee %s, tax %s', s.orders, s.amount, s.fee, s.tax) AS actual
    FROM posted p FULL JOIN summed s
        ON (s.day, s.merchant, s.kind, s.currency) = (p.day, p.merchant, p.kind, p.currency)
    WHERE (p.orders, p.amount, p.fee, p.tax) IS DISTINCT FROM (s.orders, s.amount, s.fee, s.tax)
    UNION ALL
    SELECT d.day::text, 'all orders', coalesce(sum(p.orders), 0)::text, d.orders::text
    FROM fund.day_ends d LEFT JOIN posted p ON p.day = d.day GROUP BY d.day, d.orders
    HAVING d.orders IS DISTINCT FROM coalesce(sum(p.orders), 0)
    UNION ALL
    SELECT d.day::text, 'the day after', 'closed', 'not closed' FROM fund.day_ends d
    WHERE NOT EXISTS (SELECT 1 FROM fund.day_ends n WHERE n.day = d.day + 1) AND d.day < (SELECT max(m.day) FROM fund.day_ends m)
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.day, x.what LIMIT 100
