-- Record the result of an attempt. $1 webhook, $2 seq, $3 state, $4 status or null, $5 error or null, $6 seconds until
-- the next attempt. Rows: none. Locks: the delivery.
UPDATE outbox.deliveries
SET state = $3, attempts = attempts + 1, last_status = $4, last_error = $5,
    due_at = clock_timestamp() + make_interval(secs => $6),
    ended_at = CASE WHEN $3 <> 'waiting' THEN clock_timestamp() END
WHERE webhook = $1 AND seq = $2 AND state = 'waiting'
