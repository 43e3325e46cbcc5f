-- Read the buffered credits of accounts. The caller has locked slot 0 of each account, so no other transaction drains them.
-- $1 account numbers. $2 maximum number of rows to read for each account, oldest first, NULL for all. All rows that one batch
-- wrote are read together, even if their number exceeds $2. Rows: one per buffered credit, by account number, batch and number.
-- Locks: none.
SELECT b.account_number, b.batch, b.number, b.of, b.voucher_id, b.amount, b.accounting_date, b.posted_at, b.key_version, b.mac,
       b.module
FROM unnest($1::bigint[]) AS k (account_number)
LEFT JOIN LATERAL (
    SELECT c.posted_at, c.batch FROM ledger.buffered_entries c
    WHERE $2::bigint IS NOT NULL AND c.account_number = k.account_number
    ORDER BY c.posted_at, c.batch OFFSET $2 - 1 LIMIT 1
) AS last ON true
JOIN ledger.buffered_entries b ON b.account_number = k.account_number
    AND (last.batch IS NULL OR (b.posted_at, b.batch) <= (last.posted_at, last.batch))
ORDER BY b.account_number, b.batch, b.number
