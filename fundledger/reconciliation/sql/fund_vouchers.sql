-- What the fund service posted, and every reversal with the reference of what it reverses, by id.
-- Rows: one per posted voucher of these. Locks: none.
SELECT v.id, v.type, v.lines, v.reference, v.reverses,
       (SELECT r.reference FROM ledger.vouchers r WHERE r.id = v.reverses) AS of_reference
FROM ledger.vouchers v
WHERE v.refusal IS NULL AND (v.reference LIKE 'fund:%' OR v.reverses IS NOT NULL)
ORDER BY v.id
