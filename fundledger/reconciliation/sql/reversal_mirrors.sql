-- Reversals that are not the exact opposite of a voucher of their module, or that reverse a voucher a second time.
-- Rows: the first 100; `total` is the number of all. Locks: none.
SELECT r.id, r.module, r.reverses, count(*) OVER () AS total
FROM ledger.vouchers r LEFT JOIN ledger.vouchers v ON v.id = r.reverses AND v.module = r.module AND v.refusal IS NULL
WHERE r.reverses IS NOT NULL AND r.refusal IS NULL AND (
    v.id IS NULL
    -- Amounts are compared as numeric, because the opposite of the smallest bigint is not a bigint.
    OR (SELECT array_agg(CASE WHEN l.i % 2 = 0 THEN -l.x::numeric ELSE l.x END ORDER BY l.i)
        FROM unnest(v.lines) WITH ORDINALITY AS l (x, i)) IS DISTINCT FROM r.lines::numeric[]
    OR (SELECT count(*) FROM ledger.vouchers o WHERE o.reverses = r.reverses AND o.module = r.module AND o.refusal IS NULL) > 1
) ORDER BY r.id LIMIT 100
