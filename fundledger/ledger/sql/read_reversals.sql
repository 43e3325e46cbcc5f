-- Which vouchers of these ids have been reversed, and by which: a reversal is of the module of what it reverses.
-- $1 voucher ids. Rows: one per reversed voucher. Locks: none.
SELECT v.module, v.reverses, v.id FROM ledger.vouchers v WHERE v.reverses = ANY ($1::uuid[]) AND v.refusal IS NULL
