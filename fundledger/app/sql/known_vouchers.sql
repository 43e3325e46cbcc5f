-- Which of these vouchers are recorded, posted or refused.
-- $1 ids. Rows: one for each that is. Locks: none.
SELECT id FROM ledger.vouchers WHERE id = ANY ($1::uuid[])
