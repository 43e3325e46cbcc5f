-- Read which of these vouchers have been reversed, each with the id of the reversal. Both vouchers have the same module.
-- $1 voucher ids. Rows: one per reversed voucher. Locks: none.
SELECT v.module, v.reverses, v.id FROM ledger.vouchers v WHERE v.reverses = ANY ($1::uuid[]) AND v.refusal IS NULL
