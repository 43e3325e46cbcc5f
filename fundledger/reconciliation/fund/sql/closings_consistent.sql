-- Closings of days that the service did not make. There are three cases: a day was closed without the ends of its orders although a
-- calendar was recorded before the day ended, a day was closed before it ended, or a day is being closed that does not follow the last
-- closed day. Rows: the first 100; `total` is the number of all. Locks: none.
WITH differences AS (
    SELECT d.day::text AS day, 'its ends' AS expected, 'none' AS actual FROM fund.day_ends d
    WHERE d.ends IS NULL AND (d.day + 1)::timestamp AT TIME ZONE 'UTC' > (SELECT min(c.recorded_at) FROM fund.calendars c)
    UNION ALL
    SELECT d.day::text, 'a time after its end', 'closed at ' || d.closed_at FROM fund.day_ends d WHERE d.ends_at > d.closed_at
    UNION ALL
    SELECT c.day::text, 'the day after the last closed day', 'being closed' FROM fund.day_closings c
    WHERE NOT EXISTS (SELECT FROM fund.day_ends d WHERE d.day = c.day)
      AND (c.day > (SELECT max(d.day) + 1 FROM fund.day_ends d)
           OR EXISTS (SELECT FROM fund.day_closings e WHERE e.day < c.day AND NOT EXISTS (SELECT FROM fund.day_ends d WHERE d.day = e.day)))
)
SELECT x.*, count(*) OVER () AS total FROM differences x ORDER BY x.day, x.expected LIMIT 100
