-- What is written ahead and not known yet. Rows: one, how many orders, how old the oldest is (s), how many orders are stuck.
-- Locks: none.
SELECT count(*) AS orders, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age_s,
       (SELECT count(*) FROM fund.orders WHERE state = 'stuck') AS stuck
FROM fund.orders
WHERE due_at IS NOT NULL AND state = 'posting'
