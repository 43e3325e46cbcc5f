-- Which of these vouchers are recorded, posted or refused.
-- $1 ids. Rows: one for each module that has posted one of them. Locks: none.
SELECT id, module FROM ledger.vouchers WHERE id = ANY ($1::uuid[])
