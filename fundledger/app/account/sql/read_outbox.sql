-- Read vouchers from the outbox, in order. $1 first seq, $2 last seq, $3 event to start after, $4 maximum number of rows,
-- $5 events per seq. Rows: one per voucher; `module` is null for vouchers of early versions (`shared_id`). Locks: none.
SELECT o.seq * $5::bigint + v.n AS event, v.id, o.at, coalesce(o.module, v.module) AS module
FROM (
    -- One module may stand for all vouchers. OFFSET 0: this is computed once for each row, not for each voucher.
    SELECT b.seq, b.at, b.vouchers, b.modules, CASE WHEN cardinality(b.modules) = 1 THEN b.modules[1] END AS module
    FROM ledger.outbox b WHERE b.seq >= $1 AND b.seq <= $2 OFFSET 0
) AS o, ROWS FROM (unnest(o.vouchers), unnest(o.modules)) WITH ORDINALITY AS v (id, module, n)
WHERE o.seq * $5::bigint + v.n > $3
ORDER BY o.seq, v.n LIMIT $4
