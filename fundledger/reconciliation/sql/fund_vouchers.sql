-- What the module of the fund service posted, by id; of a reversal with the reference of what it reverses.
-- $1 module. Rows: one per posted voucher. Locks: none.
SELECT v.id, v.type, v.lines, v.reference, v.reverses,
       (SELECT r.reference FROM ledger.vouchers r WHERE r.id = v.reverses AND r.module = v.module) AS of_reference
FROM ledger.vouchers v
WHERE v.refusal IS NULL AND v.module = $1
ORDER BY v.id
