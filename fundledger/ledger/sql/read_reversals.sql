-- Which of these vouchers have been reversed, and by which.
-- $1 voucher ids. Rows: one per reversed voucher. Locks: none.
SELECT v.reverses, v.id FROM ledger.vouchers v WHERE v.reverses = ANY ($1::uuid[]) AND v.refusal IS NULL
