-- Endpoints whose next delivery (the oldest waiting one) is due. Late endpoints come last: their next delivery failed
-- before, or they were slow. Among the others, and among the late ones, the first endpoint of each merchant comes
-- before the second endpoint of any merchant. $1 endpoints that are being served, $2 limit, $3 slow endpoints, $4 limit
-- per merchant (the endpoints in $1 count), $5 endpoints that do not match their MAC, which are left out. Rows: one per
-- endpoint. Locks: none.
WITH due AS (
    SELECT w.id, w.merchant, w.url, d.attempts > 0 OR w.id = ANY ($3::uuid[]) AS late, d.due_at FROM outbox.webhooks w
    CROSS JOIN LATERAL (
        SELECT d.attempts, d.due_at FROM outbox.deliveries d
        WHERE d.webhook = w.id AND d.state = 'waiting' ORDER BY d.seq LIMIT 1
    ) AS d
    WHERE w.disabled_at IS NULL AND w.id <> ALL ($1::uuid[]) AND w.id <> ALL ($5::uuid[]) AND d.due_at <= clock_timestamp()
), served AS (
    SELECT merchant, count(*) AS endpoints FROM outbox.webhooks WHERE id = ANY ($1::uuid[]) GROUP BY merchant
), ranked AS (
    SELECT due.*, coalesce(served.endpoints, 0)
        + row_number() OVER (PARTITION BY due.merchant ORDER BY due.late, due.due_at) AS turn
    FROM due LEFT JOIN served USING (merchant)
)
SELECT r.id, r.merchant, r.url, r.late FROM ranked r WHERE r.turn <= $4 ORDER BY r.late, r.turn, r.due_at LIMIT $2
