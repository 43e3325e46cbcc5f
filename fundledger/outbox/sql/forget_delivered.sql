-- What was delivered long ago. $1 how many days, $2 how many at once. Rows: none. Locks: those deliveries.
DELETE FROM outbox.deliveries WHERE (webhook, seq) IN (
    SELECT d.webhook, d.seq FROM outbox.deliveries d
    WHERE d.state = 'delivered' AND d.ended_at < clock_timestamp() - make_interval(days => $1::integer)
    ORDER BY d.ended_at LIMIT $2
)
