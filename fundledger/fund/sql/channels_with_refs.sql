-- Channels that have orders with a channel_ref, in alphabetical order. $1 limit. Rows: at most $1. One index look-up
-- for each row. Locks: none.
WITH RECURSIVE channels (channel) AS (
    (SELECT o.channel FROM fund.orders o WHERE o.channel_ref IS NOT NULL ORDER BY o.channel LIMIT 1)
    UNION ALL
    SELECT (SELECT o.channel FROM fund.orders o WHERE o.channel_ref IS NOT NULL AND o.channel > c.channel
            ORDER BY o.channel LIMIT 1)
    FROM channels c WHERE c.channel IS NOT NULL
)
SELECT c.channel FROM channels c WHERE c.channel IS NOT NULL LIMIT $1::bigint
