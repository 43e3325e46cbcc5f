-- Find the given vouchers that are recorded, posted or refused.
-- $1 ids. Rows: one per id and module that has recorded it. Locks: none.
SELECT id, module FROM ledger.vouchers WHERE id = ANY ($1::uuid[])
