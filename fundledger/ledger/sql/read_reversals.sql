-- Read which of the given vouchers are reversed, and the ids of their reversals. A reversal always has the module of the reversed
-- voucher.
-- $1 voucher ids. Rows: one per reversed voucher. Locks: none.
SELECT v.module, v.reverses, v.id FROM ledger.vouchers v WHERE v.reverses = ANY ($1::uuid[]) AND v.refusal IS NULL
