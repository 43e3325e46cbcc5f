-- The greatest age, in seconds, of a delivery that had no attempt yet. Only the next delivery of each endpoint counts.
-- Rows: one; 0 if there is no such delivery. Locks: none.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(d.made_at)), 0)::double precision AS lag_s
FROM outbox.webhooks w
CROSS JOIN LATERAL (
    SELECT d.made_at, d.attempts FROM outbox.deliveries d
    WHERE d.webhook = w.id AND d.state = 'waiting' ORDER BY d.seq LIMIT 1
) AS d
WHERE w.disabled_at IS NULL AND d.attempts = 0
