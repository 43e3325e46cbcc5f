-- Read vouchers from the outbox, in order. $1 first seq, $2 last seq, $3 event to start after, $4 maximum number of rows,
-- $5 events per seq. Rows: one per voucher; `module` is null for vouchers of early versions (`shared_id`). Locks: none.
SELECT o.seq * $5::bigint + v.n AS event, v.id, o.at, coalesce(o.module, v.module) AS module
FROM (
    -- One module may stand for all vouchers. Each row has a voucher, and only those of the first row may be left out by
    -- $3, so $4 + 1 rows are enough.
    SELECT b.seq, b.at, b.vouchers, b.modules, CASE WHEN cardinality(b.modules) = 1 THEN b.modules[1] END AS module
    FROM ledger.outbox b WHERE b.seq >= $1 AND b.seq <= $2 ORDER BY b.seq LIMIT $4::bigint + 1
) AS o, ROWS FROM (unnest(o.vouchers), unnest(o.modules)) WITH ORDINALITY AS v (id, module, n)
WHERE o.seq * $5::bigint + v.n > $3 AND v.id IS NOT NULL
ORDER BY o.seq, v.n LIMIT $4
