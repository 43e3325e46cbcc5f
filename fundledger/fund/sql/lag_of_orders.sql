-- The number of orders that are due for recovery, and the seconds since the oldest of these orders became due. Rows:
-- one. Locks: none.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(o.due_at)), 0)::float8 AS lag_s
FROM fund.orders o
WHERE o.due_at <= clock_timestamp()
  AND (o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')))
