-- Find the given vouchers that are recorded, as posted or as refused.
-- $1 ids. Rows: one per recorded voucher: id, module. Locks: none.
SELECT id, module FROM ledger.vouchers WHERE id = ANY ($1::uuid[])
