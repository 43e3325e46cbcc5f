-- Split orders of one kind that a merchant owns, or in which it has a part, oldest first. $1 merchant, $2 kind, $3 state, null
-- for all states, $4 seq to start after, $5 limit. Rows: at most $5. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE o.id = ANY (ARRAY(
    SELECT f.id FROM (
        (SELECT w.id, w.seq FROM fund.orders w
         WHERE w.merchant = $1 AND w.kind = $2 AND w.seq > $4 AND ($3::text IS NULL OR w.state = $3) ORDER BY w.seq LIMIT $5)
        UNION
        (SELECT w.id, w.seq FROM fund.split_parts p JOIN fund.orders w ON w.id = p.order_id
         WHERE p.merchant = $1 AND p.kind = $2 AND p.seq > $4 AND ($3::text IS NULL OR w.state = $3) ORDER BY p.seq LIMIT $5)
    ) f ORDER BY f.seq LIMIT $5
))
ORDER BY o.seq
