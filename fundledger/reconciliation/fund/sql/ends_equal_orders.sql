-- Ends of orders that differ from fund.ends: an order that ended has no row, or a row belongs to no order with this end. An order that
-- ended before the last day whose ends were not summed needs no row; such a day ended before a calendar was recorded. Rows: the first
-- 100; `total` is the number of all. Locks: none.
WITH differences AS (
    SELECT o.id::text AS id, 'a row in fund.ends: ' || o.state AS expected, 'none' AS actual
    FROM fund.orders o
    WHERE o.state IN ('paid', 'bounced', 'won', 'lost')
      AND NOT EXISTS (SELECT FROM fund.ends e WHERE e.order_id = o.id AND e.ending = o.state)
      AND EXISTS (
          SELECT FROM fund.events v WHERE v.order_id = o.id AND v.state = o.state
            AND v.at >= coalesce((SELECT (max(d.day) + 1)::timestamp AT TIME ZONE 'UTC' FROM fund.day_ends d
                                 WHERE d.ends IS NULL AND (d.day + 1)::timestamp AT TIME ZONE 'UTC'
                                     <= coalesce((SELECT min(c.recorded_at) FROM fund.calendars c), 'infinity')), v.at))
    UNION ALL
    SELECT e.order_id::text, 'an order that is ' || e.ending, coalesce(o.kind || ' ' || o.state, 'none')
    FROM fund.ends e LEFT JOIN fund.orders o ON o.id = e.order_id
    WHERE o.id IS NULL OR o.state <> e.ending
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.id, x.expected LIMIT 100
