-- Read the numbers of the first 20 accounts of each key version. The query is used for a ledger without key fingerprints.
-- Rows: at most 20 per version. Locks: none. The query scans all accounts.
SELECT f.number
FROM (SELECT a.number, row_number() OVER (PARTITION BY a.key_version ORDER BY a.number) AS nth FROM ledger.accounts a) f
WHERE f.nth <= 20
