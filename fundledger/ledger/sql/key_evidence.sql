-- The first accounts MACed with each key. Rows: at most 20 per version. Locks: none. Scans; for a ledger without fingerprints.
SELECT f.number
FROM (SELECT a.number, row_number() OVER (PARTITION BY a.key_version ORDER BY a.number) AS nth FROM ledger.accounts a) f
WHERE f.nth <= 20
