-- Orders of a merchant, of one kind, oldest first. $1 merchant, $2 kind, $3 state, null for all states, $4 seq to start
-- after, $5 limit. Rows: at most $5. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.merchant = $1 AND o.kind = $2 AND o.seq > $4 AND ($3::text IS NULL OR o.state = $3)
ORDER BY o.seq LIMIT $5
