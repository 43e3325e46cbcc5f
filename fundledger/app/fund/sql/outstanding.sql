-- Count the orders in state `posting`, which have no recorded outcome, and the stuck orders.
-- Rows: one: orders (count), age_s (age of the oldest, seconds), stuck (count).
-- Locks: none.
SELECT count(*) AS orders, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age_s,
       (SELECT count(*) FROM fund.orders WHERE state = 'stuck') AS stuck
FROM fund.orders
WHERE due_at IS NOT NULL AND state = 'posting'
