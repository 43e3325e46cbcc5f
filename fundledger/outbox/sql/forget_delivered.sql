-- Delete old deliveries that succeeded. $1 minimum age in days, $2 maximum number of deliveries. Rows: none. Locks:
-- these deliveries.
DELETE FROM outbox.deliveries WHERE (webhook, seq) IN (
    SELECT d.webhook, d.seq FROM outbox.deliveries d
    WHERE d.state = 'delivered' AND d.ended_at < clock_timestamp() - make_interval(days => $1::integer)
    ORDER BY d.ended_at LIMIT $2
)
