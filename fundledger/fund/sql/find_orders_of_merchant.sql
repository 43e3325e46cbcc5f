-- Orders that one merchant owns, or in which it has a part, in the order of insertion. $1 seq to start after, $2 seq to end
-- before, $3 the earliest and $4 the latest created_at, $5 the number of orders to look at, $6 merchant, $7 kinds, $8 state,
-- $9 channel, $10 channel_ref, $11 amount, each of the last four null for all, $12 limit. Rows: at most $12, the orders that
-- match, and with the place $5 the last order looked at, whether it matches or not. Locks: none.
SELECT l.id, l.created_at, l.seq, l.matches, l.place
FROM (
    SELECT w.id, w.created_at, w.seq, w.matches, row_number() OVER (ORDER BY w.seq) AS place
    FROM unnest($7::text[]) AS k (kind)
    CROSS JOIN LATERAL (
        (SELECT o.id, o.created_at, o.seq,
               o.created_at BETWEEN $3::timestamptz AND $4::timestamptz AND ($8::text IS NULL OR o.state = $8)
               AND ($9::text IS NULL OR o.channel = $9) AND ($10::text IS NULL OR o.channel_ref = $10)
               AND ($11::bigint IS NULL OR o.amount = $11) AS matches
        FROM fund.orders o
        WHERE o.merchant = $6::text AND o.kind = k.kind AND o.seq > $1::bigint AND o.seq < $2::bigint
        ORDER BY o.seq LIMIT $5::bigint)
        UNION -- an order that the merchant owns, and in which it has a part, counts once
        (SELECT o.id, o.created_at, o.seq,
               o.created_at BETWEEN $3::timestamptz AND $4::timestamptz AND ($8::text IS NULL OR o.state = $8)
               AND ($9::text IS NULL OR o.channel = $9) AND ($10::text IS NULL OR o.channel_ref = $10)
               AND ($11::bigint IS NULL OR o.amount = $11) AS matches
        FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id
        WHERE p.merchant = $6::text AND p.kind = k.kind AND p.seq > $1::bigint AND p.seq < $2::bigint
        ORDER BY p.seq LIMIT $5::bigint)
    ) w
) l
WHERE l.place <= $5 AND (l.matches OR l.place = $5)
ORDER BY l.seq LIMIT $12::bigint
