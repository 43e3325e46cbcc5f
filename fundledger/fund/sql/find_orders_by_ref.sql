-- Orders with a reference of a channel. $1 the earliest and $2 the latest created_at, $3 limit, $4 merchant, $5 kind, $6
-- state, each null for all, $7 channels, $8 channel_ref, $9 amount, null for all. Rows: at most $3 orders with the
-- reference, with whether they match. Locks: none.
SELECT o.id, o.created_at, o.seq,
       o.created_at BETWEEN $1::timestamptz AND $2::timestamptz AND ($4::text IS NULL OR o.merchant = $4 OR fund.has_part(o.parts, $4))
       AND ($5::text IS NULL OR o.kind = $5) AND ($6::text IS NULL OR o.state = $6)
       AND ($9::bigint IS NULL OR o.amount = $9) AS matches
FROM fund.orders o
WHERE o.channel = ANY ($7::text[]) AND o.channel_ref = $8::text
LIMIT $3::bigint
