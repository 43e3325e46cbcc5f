-- All buffered credits, ordered by account. The last column is the id of the account. Rows: one per buffered credit.
-- Locks: none.
SELECT b.account_number, b.batch, b.number, b.of, b.voucher_id, b.amount, b.accounting_date, b.posted_at, b.key_version, b.mac,
       b.module, a.id
FROM ledger.buffered_entries b LEFT JOIN ledger.accounts a ON a.number = b.account_number
ORDER BY b.account_number, b.batch, b.number
