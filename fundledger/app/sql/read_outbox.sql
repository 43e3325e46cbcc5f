-- What the outbox tells, a voucher a row, in order. $1 from which seq, $2 up to which, $3 after which event, $4 how many at
-- most, $5 how many events a seq stands for. Rows: one per voucher; `module` is null of those
-- with shared_id. Locks: none.
SELECT o.seq * $5::bigint + v.n AS event, v.id, o.at,
       o.modules[CASE WHEN cardinality(o.modules) = 1 THEN 1 ELSE v.n END] AS module
FROM ledger.outbox o, unnest(o.vouchers) WITH ORDINALITY AS v (id, n)
WHERE o.seq >= $1 AND o.seq <= $2 AND o.seq * $5::bigint + v.n > $3
ORDER BY o.seq, v.n LIMIT $4
