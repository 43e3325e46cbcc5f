-- The first day (UTC) that ended at least $1 seconds ago and is not closed. `ended_s`: the seconds since the end of
-- this day. `unknown`: the number of orders without a known outcome, of this day and of earlier days. Rows: one, or
-- none if all such days are closed. Locks: none.
WITH first AS (
    SELECT coalesce((SELECT max(e.day) + 1 FROM fund.day_ends e),
                    -- If no day is closed, begin with the day of the first inserted orders. If no order has one of the
                    -- first seqs, begin with the day of the first orders with an event.
                    (SELECT min(o.created_at AT TIME ZONE 'UTC')::date FROM fund.orders o WHERE o.seq <= 1000),
                    (SELECT min(o.created_at AT TIME ZONE 'UTC')::date
                     FROM (SELECT e.order_id FROM fund.events e ORDER BY e.seq LIMIT 1000) t
                     JOIN fund.orders o ON o.id = t.order_id)) AS day
), ended AS (
    SELECT f.day, ((f.day + 1)::timestamp AT TIME ZONE 'UTC') AS at FROM first f
)
SELECT e.day, extract(epoch FROM clock_timestamp() - e.at)::double precision AS ended_s,
       (SELECT count(*) FROM fund.orders o WHERE o.due_at IS NOT NULL AND o.state = 'posting' AND o.created_at < e.at) AS unknown
FROM ended e WHERE e.at <= clock_timestamp() - make_interval(secs => $1)
