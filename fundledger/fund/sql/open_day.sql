-- The facts that determine the first day that is not closed: the last closed day, and the time at which the first orders
-- were created, each null if there is none; with the time of the database. If no order has one of the first seqs, the first
-- orders are those with the first events. Rows: one. Locks: none.
SELECT (SELECT max(e.day) FROM fund.day_ends e) AS closed,
       -- The minimum of an expression is read through the first orders, and not through the index of all times.
       coalesce((SELECT min(o.created_at AT TIME ZONE 'UTC') FROM fund.orders o WHERE o.seq <= 1000),
                (SELECT min(o.created_at AT TIME ZONE 'UTC')
                 FROM (SELECT e.order_id FROM fund.events e ORDER BY e.seq LIMIT 1000) t
                 JOIN fund.orders o ON o.id = t.order_id)) AT TIME ZONE 'UTC' AS first_at,
       clock_timestamp() AS now
