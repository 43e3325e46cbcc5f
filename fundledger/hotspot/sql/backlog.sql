-- Read the number of buffered credits of each account, and the time at which the oldest was accepted. Accounts with an integrity
-- freeze are excluded, because their buffered credits are kept as evidence.
-- Rows: one per account. Locks: none.
SELECT b.account_number, count(*) AS waiting, min(b.posted_at) AS oldest FROM ledger.buffered_entries b
GROUP BY b.account_number
HAVING NOT EXISTS (
    SELECT FROM ledger.sub_accounts s WHERE s.account_number = b.account_number AND s.slot = 0 AND (s.status = 4 OR s.suspect) -- integrity
)
