-- Endpoints whose next delivery is due: the oldest that waits, since what comes after waits for it. Those that were not
-- tried yet come first. $1 those that are being served, $2 how many at most, $3 how many of them may be retries.
-- Rows: one per endpoint. Locks: none.
WITH due AS (
    SELECT w.id, d.attempts, d.due_at FROM outbox.webhooks w
    CROSS JOIN LATERAL (
        SELECT d.attempts, d.due_at FROM outbox.deliveries d
        WHERE d.webhook = w.id AND d.state = 'waiting' ORDER BY d.seq LIMIT 1
    ) AS d
    WHERE w.disabled_at IS NULL AND w.id <> ALL ($1::uuid[]) AND d.due_at <= clock_timestamp()
), ranked AS (
    SELECT due.*, row_number() OVER (PARTITION BY due.attempts > 0 ORDER BY due.due_at) AS place FROM due
)
SELECT r.id FROM ranked r WHERE r.attempts = 0 OR r.place <= $3::bigint ORDER BY r.attempts > 0, r.due_at LIMIT $2
