-- Changes that wait and were requested before a time, oldest first. $1 this time, $2 limit. Rows: at most $2. Locks:
-- none.
SELECT c.id FROM fund.changes c WHERE c.state = 'waiting' AND c.made_at <= $1 ORDER BY c.made_at LIMIT $2
