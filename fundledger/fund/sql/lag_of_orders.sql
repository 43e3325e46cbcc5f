-- How many orders wait for the recoverer, and for how long the oldest has since it was due (s). Rows: one. Locks: none.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(o.due_at)), 0)::float8 AS lag_s
FROM fund.orders o
WHERE o.due_at <= clock_timestamp()
  AND (o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')))
