-- Holidays that differ from the last change that was applied to their day, or are missing. Rows: the first 100; `total` is the number
-- of all. Locks: none.
WITH asked AS (
    SELECT DISTINCT ON (g.subject, d.value ->> 'day') g.subject AS region, d.value ->> 'day' AS day, g.id AS change,
           coalesce((d.value ->> 'working')::boolean, false) AS working, d.value ->> 'name' AS name
    FROM fund.changes g CROSS JOIN LATERAL jsonb_array_elements(g.body::jsonb -> 'days') d
    WHERE g.kind = 'holidays' AND g.state = 'applied'
    ORDER BY g.subject, d.value ->> 'day', g.decided_at DESC, g.seq DESC
)
SELECT coalesce(a.region, h.region) AS region, coalesce(a.day, h.day::text) AS day,
       format('change %s: working %s, name %s', a.change, a.working, coalesce(a.name, 'none')) AS expected,
       format('change %s: working %s, name %s', h.change, h.working, coalesce(h.name, 'none')) AS actual, count(*) OVER () AS total
FROM asked a FULL JOIN fund.holidays h ON h.region = a.region AND h.day::text = a.day
WHERE (a.change, a.working, a.name) IS DISTINCT FROM (h.change, h.working, h.name)
ORDER BY 1, 2 LIMIT 100
