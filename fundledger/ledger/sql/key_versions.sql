-- The key versions that rows were MACed with. Rows: one per version. Locks: none. Scans; for a ledger without fingerprints.
SELECT DISTINCT s.key_version FROM ledger.sub_accounts s
