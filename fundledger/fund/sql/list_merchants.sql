-- Merchants, oldest first. $1 seq to start after, $2 limit. Rows: at most $2. Locks: none.
SELECT m.seq, m.id FROM fund.merchants m WHERE m.seq > $1 ORDER BY m.seq LIMIT $2
