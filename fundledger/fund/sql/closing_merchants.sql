-- Merchants that are being closed, by id. $1 limit. Rows: at most $1. Locks: none.
SELECT m.id FROM fund.merchants m WHERE m.state = 'closing' ORDER BY m.id LIMIT $1
