-- Read the first accounts of each key version, of a ledger without fingerprints. Scans.
-- Rows: at most 20 per version. Locks: none.
SELECT f.number
FROM (SELECT a.number, row_number() OVER (PARTITION BY a.key_version ORDER BY a.number) AS nth FROM ledger.accounts a) f
WHERE f.nth <= 20
