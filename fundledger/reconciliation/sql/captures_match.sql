-- Holds whose state does not agree with a voucher. Either a hold is captured, but its voucher is missing or debits
-- another amount from the held account. Or a hold is not captured, but has a voucher. A hold can be captured only by
-- its own module. Before modules were recorded, any module could capture it. Rows: the first 100; `total` is the number
-- of all. Locks: none.
SELECT h.id, h.module, h.voucher_id, count(*) OVER () AS total
FROM ledger.holds h
LEFT JOIN ledger.vouchers v ON v.id = h.voucher_id AND (v.module = h.module OR v.shared_id) AND v.refusal IS NULL
WHERE CASE WHEN h.status = 1 THEN
    v.id IS NULL OR v.hold IS DISTINCT FROM h.id
    OR abs((SELECT sum(l.amount) FROM (
                SELECT i, x AS account_number, lead(x) OVER (ORDER BY i) AS amount
                FROM unnest(v.lines) WITH ORDINALITY AS line (x, i) -- see voucher_equals_entries.sql
            ) AS l WHERE l.i % 2 = 1 AND l.account_number = h.account_number)) IS DISTINCT FROM h.captured
    ELSE h.voucher_id IS NOT NULL END
ORDER BY h.id LIMIT 100
