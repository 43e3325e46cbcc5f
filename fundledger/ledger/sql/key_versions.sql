-- Read the key versions of sub-accounts, of a ledger without fingerprints. Rows: one per version. Locks: none. Scans.
SELECT DISTINCT s.key_version FROM ledger.sub_accounts s
