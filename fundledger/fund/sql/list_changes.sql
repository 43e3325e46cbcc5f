-- Changes, oldest first. $1 state, null for all states, $2 seq to start after, $3 limit. Rows: at most $3. Locks: none.
SELECT c.seq, c.id, c.kind, c.subject, c.body, c.state, c.maker, c.made_at, c.checker, c.decided_at, c.reason, c.mac_key, c.mac
FROM fund.changes c WHERE ($1::text IS NULL OR c.state = $1) AND c.seq > $2 ORDER BY c.seq LIMIT $3
