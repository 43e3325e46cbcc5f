-- Posting times and accounting dates of the vouchers that the module of the fund service posted. $1 module. Rows: one per posted
-- voucher. Locks: none.
SELECT v.id, v.posted_at, v.accounting_date FROM ledger.vouchers v WHERE v.refusal IS NULL AND v.module = $1
