-- Read the buffered credits of some accounts. The caller holds their slots 0, so no other transaction drains them.
-- $1 account numbers. Rows: one per buffered credit, in order. Locks: none.
SELECT b.account_number, b.batch, b.number, b.of, b.voucher_id, b.amount, b.accounting_date, b.posted_at, b.key_version, b.mac,
       b.module
FROM ledger.buffered_entries b WHERE b.account_number = ANY ($1::bigint[]) ORDER BY b.account_number, b.batch, b.number
