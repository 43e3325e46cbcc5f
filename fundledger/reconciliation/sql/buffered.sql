-- All that waits to be folded, account by account. Rows: one per buffered credit. Locks: none.
SELECT b.account_number, b.batch, b.number, b.of, b.voucher_id, b.amount, b.accounting_date, b.posted_at, b.key_version, b.mac
FROM ledger.buffered_entries b ORDER BY b.account_number, b.batch, b.number
