-- Captured holds whose voucher is not there or took another amount from the held account. Rows: the first 100. Locks: none.
SELECT h.id, h.voucher_id FROM ledger.holds h LEFT JOIN ledger.vouchers v ON v.id = h.voucher_id AND v.refusal IS NULL
WHERE h.status = 1 AND (
    v.id IS NULL OR v.hold IS DISTINCT FROM h.id
    OR abs((SELECT sum(v.lines[2 * i]) FROM generate_series(1, cardinality(v.lines) / 2) AS i
            WHERE v.lines[2 * i - 1] = h.account_number)) <> h.captured
) LIMIT 100
