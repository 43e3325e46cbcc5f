-- Orders in a state that few orders have, the earliest created first. The parameters and rows are those of
-- find_orders.sql; $7 is neither null, nor `posted`, nor `posting`: the query repeats this condition, so that the
-- partial index is used. Locks: none.
SELECT l.id, l.created_at, l.seq, l.matches, l.place
FROM (
    SELECT w.id, w.created_at, w.seq, w.matches, row_number() OVER (ORDER BY w.created_at, w.seq) AS place
    FROM (
        SELECT o.id, o.created_at, o.seq,
               ($5::text IS NULL OR o.merchant = $5 OR fund.has_part(o.parts, $5)) AND ($6::text IS NULL OR o.kind = $6)
               AND ($8::text IS NULL OR o.channel = $8)
               AND ($9::text IS NULL OR o.channel_ref = $9) AND ($10::bigint IS NULL OR o.amount = $10) AS matches
        FROM fund.orders o
        WHERE o.state = $7::text AND o.state NOT IN ('posted', 'posting')
          AND (o.created_at, o.seq) > ($1::timestamptz, $2::bigint) AND o.created_at <= $3::timestamptz
        ORDER BY o.created_at, o.seq LIMIT $4::bigint
    ) w
) l
WHERE l.matches OR l.place = $4
ORDER BY l.created_at, l.seq LIMIT $11::bigint
