-- The number of orders that are due for recovery, and the age of the oldest order that the recoverer has to complete: since
-- its creation, or since its end or its release was recorded. An order that is taken repeatedly gets no younger. Rows: one. Locks:
-- none.
SELECT count(*) FILTER (WHERE o.due_at <= clock_timestamp()) AS waiting,
       coalesce(extract(epoch FROM clock_timestamp()
           - min(coalesce(o.step_asked_at, CASE WHEN o.state = 'posting' THEN o.created_at ELSE o.posted_at END))), 0)::float8 AS lag_s
FROM fund.orders o
WHERE o.due_at IS NOT NULL
  AND (o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')))
