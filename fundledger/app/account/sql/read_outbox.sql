-- Read vouchers from the outbox, in order. $1 first seq, $2 last seq, $3 event to start after, $4 maximum number of rows,
-- $5 events per seq. Rows: one per voucher; `module` is null for vouchers of early versions (`shared_id`). Locks: none.
SELECT o.seq * $5::bigint + v.n AS event, v.id, o.at,
       o.modules[CASE WHEN cardinality(o.modules) = 1 THEN 1 ELSE v.n END] AS module
FROM ledger.outbox o, unnest(o.vouchers) WITH ORDINALITY AS v (id, n)
WHERE o.seq >= $1 AND o.seq <= $2 AND o.seq * $5::bigint + v.n > $3
ORDER BY o.seq, v.n LIMIT $4
