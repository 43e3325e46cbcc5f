-- Vouchers that the module of the fund service posted, ordered by id. `of_reference`: for a reversal, the reference of
-- the voucher that it reverses. $1 module. Rows: one per posted voucher. Locks: none.
SELECT v.id, v.type, v.lines, v.reference, v.reverses,
       (SELECT r.reference FROM ledger.vouchers r WHERE r.id = v.reverses AND r.module = v.module) AS of_reference
FROM ledger.vouchers v
WHERE v.refusal IS NULL AND v.module = $1
ORDER BY v.id
