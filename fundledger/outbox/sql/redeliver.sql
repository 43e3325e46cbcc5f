-- Restart dead deliveries. $1 webhook, $2 seqs, null for all of them. Rows: none. Locks: these deliveries.
UPDATE outbox.deliveries d SET state = 'waiting', attempts = 0, due_at = clock_timestamp(), ended_at = NULL
WHERE d.webhook = $1 AND d.state = 'dead' AND ($2::bigint[] IS NULL OR d.seq = ANY ($2))
