-- Orders without a known outcome. $1 the earliest and $2 the latest created_at, $3 the number of orders to look at, $4
-- merchant, $5 kind, $6 channel, $7 amount, each null for all. Rows: at most $3 orders that wait for the recoverer, with
-- whether they are `posting` and match. Locks: none.
SELECT o.id, o.created_at, o.seq,
       o.state = 'posting' AND o.created_at BETWEEN $1::timestamptz AND $2::timestamptz
       AND ($4::text IS NULL OR o.merchant = $4 OR fund.has_part(o.parts, $4)) AND ($5::text IS NULL OR o.kind = $5)
       AND ($6::text IS NULL OR o.channel = $6) AND ($7::bigint IS NULL OR o.amount = $7) AS matches
FROM fund.orders o
WHERE o.due_at IS NOT NULL
ORDER BY o.due_at LIMIT $3::bigint
