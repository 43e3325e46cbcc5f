-- Dead deliveries of an endpoint. $1 webhook, $2 seq to start after, $3 limit. Rows: one per delivery. Locks: none.
SELECT d.seq, d.message, d.body, d.attempts, d.ended_at, d.last_status, d.last_error FROM outbox.deliveries d
WHERE d.webhook = $1 AND d.seq > $2 AND d.state = 'dead' ORDER BY d.seq LIMIT $3
