-- Count the orders in state `posting`, which have no recorded outcome, the stuck orders and the parked orders.
-- Rows: one: orders (count), age_s (age of the oldest, seconds), stuck (count), parked (count), parked_age_s (age of the
-- oldest parked order, seconds), own_transfer_age_s and dispute_age_s (age of the oldest posted own transfer and dispute, seconds).
-- Locks: none.
SELECT count(*) AS orders, coalesce(extract(epoch FROM clock_timestamp() - min(coalesce(step_asked_at, created_at))), 0)::float8 AS age_s,
       (SELECT count(*) FROM fund.orders WHERE state = 'stuck') AS stuck,
       (SELECT count(*) FROM fund.orders WHERE state = 'parked') AS parked,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM fund.orders
        WHERE state = 'parked') AS parked_age_s,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM fund.orders
        WHERE state = 'posted' AND kind = 'own_transfer') AS own_transfer_age_s,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM fund.orders
        WHERE state = 'posted' AND kind = 'dispute') AS dispute_age_s
FROM fund.orders
WHERE due_at IS NOT NULL AND state = 'posting'
