-- Orders that wait for approval and were created before a time, oldest first. $1 this time, $2 limit, $3 and $4 time and
-- id after which the page begins. Rows: at most $2. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.state = 'created' AND o.created_at <= $1 AND (o.created_at, o.id) > ($3::timestamptz, $4::uuid)
ORDER BY o.created_at, o.id LIMIT $2
