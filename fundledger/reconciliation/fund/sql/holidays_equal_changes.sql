-- Holidays that differ from the applied change that they name, and days of applied changes without a row. Rows: the first 100; `total`
-- is the number of all. Locks: none.
WITH asked AS (
    SELECT g.subject AS region, d.value ->> 'day' AS day, g.id AS change,
           coalesce((d.value ->> 'working')::boolean, false) AS working, d.value ->> 'name' AS name
    FROM fund.changes g CROSS JOIN LATERAL jsonb_array_elements(g.body::jsonb -> 'days') d
    WHERE g.kind = 'holidays' AND g.state = 'applied'
), differences AS (
    SELECT h.region, h.day::text AS day,
           CASE WHEN a.change IS NULL THEN 'an applied change of the day'
                ELSE format('change %s: working %s, name %s', a.change, a.working, coalesce(a.name, 'none')) END AS expected,
           format('change %s: working %s, name %s', h.change, h.working, coalesce(h.name, 'none')) AS actual
    FROM fund.holidays h LEFT JOIN asked a ON a.change = h.change AND a.region = h.region AND a.day = h.day::text
    WHERE (a.change, a.working, a.name) IS DISTINCT FROM (h.change, h.working, h.name)
    UNION
    SELECT a.region, a.day, 'a row', 'none'
    FROM asked a WHERE NOT EXISTS (SELECT FROM fund.holidays h WHERE h.region = a.region AND h.day::text = a.day)
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.region, x.day LIMIT 100
