-- How much waits to be folded, account by account. Rows: one per account. Locks: none.
SELECT b.account_number, count(*) AS waiting, min(b.posted_at) AS oldest FROM ledger.buffered_entries b
GROUP BY b.account_number
