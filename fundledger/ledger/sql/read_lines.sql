-- The lines of vouchers on one account, in the order of the voucher.
-- $1 account number, $2 voucher ids. Rows: one per line. Locks: none.
SELECT v.id, v.type, v.lines[2 * i] AS amount
FROM ledger.vouchers v CROSS JOIN LATERAL generate_series(1, cardinality(v.lines) / 2) AS i
WHERE v.id = ANY ($2::uuid[]) AND v.lines[2 * i - 1] = $1
ORDER BY v.id, i
