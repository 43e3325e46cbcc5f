-- The next delivery of an endpoint, if it is due. $1 webhook. Rows: one, or none if no delivery is due. Locks: none.
SELECT w.id, w.merchant, w.url, w.events, w.created_at, w.disabled_at, w.disabled_why, w.secret, w.module, w.mac_key, w.mac, d.*
FROM outbox.webhooks w
CROSS JOIN LATERAL (
    SELECT d.seq, d.message, d.body, d.attempts, d.due_at FROM outbox.deliveries d
    WHERE d.webhook = w.id AND d.state = 'waiting' ORDER BY d.seq LIMIT 1
) AS d
WHERE w.id = $1 AND w.disabled_at IS NULL AND d.due_at <= clock_timestamp()
