-- Orders of all merchants, the earliest created first. $1 created_at and $2 seq of the order to start after, $3 the latest
-- created_at, $4 the number of orders to look at, $5 merchant, $6 kind, $7 state, $8 channel, $9 channel_ref, $10
-- amount, each null for all, $11 limit. Rows: at most $11, the orders that match, and with the place $4 the last order
-- looked at, whether it matches or not. Locks: none.
SELECT l.id, l.created_at, l.seq, l.matches, l.place
FROM (
    SELECT w.id, w.created_at, w.seq, w.matches, row_number() OVER (ORDER BY w.created_at, w.seq) AS place
    FROM (
        SELECT o.id, o.created_at, o.seq,
               ($5::text IS NULL OR o.merchant = $5) AND ($6::text IS NULL OR o.kind = $6)
               AND ($7::text IS NULL OR o.state = $7) AND ($8::text IS NULL OR o.channel = $8)
               AND ($9::text IS NULL OR o.channel_ref = $9) AND ($10::bigint IS NULL OR o.amount = $10) AS matches
        FROM fund.orders o
        WHERE (o.created_at, o.seq) > ($1::timestamptz, $2::bigint) AND o.created_at <= $3::timestamptz
        ORDER BY o.created_at, o.seq LIMIT $4::bigint
    ) w
) l
WHERE l.matches OR l.place = $4
ORDER BY l.created_at, l.seq LIMIT $11::bigint
