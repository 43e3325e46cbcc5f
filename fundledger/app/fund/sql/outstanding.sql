-- What is written ahead and not known yet. Rows: one, how many orders, how old the oldest is (s). Locks: none.
SELECT count(*) AS orders, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age_s
FROM fund.orders
WHERE due_at IS NOT NULL AND state = 'posting'
