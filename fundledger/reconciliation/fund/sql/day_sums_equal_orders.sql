-- Days that are closed wrongly. There are four cases: the sums of a closed day differ from its orders, or from the orders that
-- ended on it, a day has sums but was not closed, or a day was not closed although an earlier and a later day were closed. The sums
-- of orders are compared over all states, because the state of an order may have changed after its day was closed. Rows: the first
-- 100; `total` is the number of all. Locks: none.
WITH days AS (
    SELECT d.day, d.orders, d.ends, coalesce(d.begins_at, d.day::timestamp AT TIME ZONE 'UTC') AS begins_at,
           coalesce(d.ends_at, (d.day + 1)::timestamp AT TIME ZONE 'UTC') AS ends_at
    FROM fund.day_ends d
), posted AS (
    SELECT d.day, o.merchant, o.kind, o.currency, count(*)::numeric AS orders, sum(o.amount) AS amount, sum(o.fee) AS fee,
           sum(o.tax) AS tax
    FROM days d JOIN fund.orders o ON o.posted_at >= d.begins_at AND o.posted_at < d.ends_at
    GROUP BY d.day, o.merchant, o.kind, o.currency
), summed AS (
    SELECT s.day, s.merchant, s.kind, s.currency, sum(s.orders) AS orders, sum(s.amount) AS amount, sum(s.fee) AS fee, sum(s.tax) AS tax
    FROM fund.day_sums s GROUP BY s.day, s.merchant, s.kind, s.currency
    HAVING (sum(s.orders), sum(s.amount), sum(s.fee), sum(s.tax)) <> (0, 0, 0, 0) OR sum(s.ended) = 0
), ended AS (
    SELECT d.day, o.merchant, o.kind, o.currency, e.ending AS state, count(*)::numeric AS ended, sum(o.amount) AS amount, sum(o.fee) AS fee
    FROM days d JOIN fund.ends e ON e.day = d.day JOIN fund.orders o ON o.id = e.order_id
    WHERE d.ends IS NOT NULL GROUP BY d.day, o.merchant, o.kind, o.currency, e.ending
), counted AS (
    SELECT s.day, s.merchant, s.kind, s.currency, s.state, s.ended::numeric AS ended, s.ended_amount AS amount, s.ended_fee AS fee
    FROM fund.day_sums s WHERE (s.ended, s.ended_amount, s.ended_fee) <> (0, 0, 0)
), differences AS (
    SELECT coalesce(p.day, s.day)::text AS day,
           format('%s of %s in %s', coalesce(p.kind, s.kind), coalesce(p.merchant, s.merchant), coalesce(p.currency, s.currency)) AS what,
           format('%s orders, amount %s, fee %s, tax %s', p.orders, p.amount, p.fee, p.tax) AS expected,
           format('%s orders, amount %s, fee %s, tax %s', s.orders, s.amount, s.fee, s.tax) AS actual
    FROM posted p FULL JOIN summed s
        ON (s.day, s.merchant, s.kind, s.currency) = (p.day, p.merchant, p.kind, p.currency)
    WHERE (p.orders, p.amount, p.fee, p.tax) IS DISTINCT FROM (s.orders, s.amount, s.fee, s.tax)
    UNION ALL
    SELECT coalesce(e.day, c.day)::text,
           format('%s of %s in %s, %s', coalesce(e.kind, c.kind), coalesce(e.merchant, c.merchant), coalesce(e.currency, c.currency),
                  coalesce(e.state, c.state)),
           format('%s ended, amount %s, fee %s', e.ended, e.amount, e.fee), format('%s ended, amount %s, fee %s', c.ended, c.amount, c.fee)
    FROM ended e FULL JOIN counted c
        ON (c.day, c.merchant, c.kind, c.currency, c.state) = (e.day, e.merchant, e.kind, e.currency, e.state)
    WHERE (e.ended, e.amount, e.fee) IS DISTINCT FROM (c.ended, c.amount, c.fee)
    UNION ALL
    SELECT d.day::text, 'all orders', coalesce(sum(p.orders), 0)::text, d.orders::text
    FROM days d LEFT JOIN posted p ON p.day = d.day GROUP BY d.day, d.orders
    HAVING d.orders IS DISTINCT FROM coalesce(sum(p.orders), 0)
    UNION ALL
    SELECT d.day::text, 'all ends', coalesce(sum(e.ended), 0)::text, d.ends::text
    FROM days d LEFT JOIN ended e ON e.day = d.day WHERE d.ends IS NOT NULL GROUP BY d.day, d.ends
    HAVING d.ends <> coalesce(sum(e.ended), 0)
    UNION ALL
    SELECT d.day::text, 'the day after', 'closed', 'not closed' FROM fund.day_ends d
    WHERE NOT EXISTS (SELECT 1 FROM fund.day_ends n WHERE n.day = d.day + 1) AND d.day < (SELECT max(m.day) FROM fund.day_ends m)
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.day, x.what LIMIT 100
