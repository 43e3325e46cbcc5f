-- Merchants that are being closed, by id. $1 id to start after, $2 limit. Rows: at most $2. Locks: none.
SELECT m.id FROM fund.merchants m WHERE m.state = 'closing' AND m.id > $1 ORDER BY m.id LIMIT $2
