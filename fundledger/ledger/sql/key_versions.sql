-- Read the key versions that occur in sub-accounts. The query is used for a ledger without key fingerprints.
-- Rows: one per version. Locks: none. The query scans all sub-accounts.
SELECT DISTINCT s.key_version FROM ledger.sub_accounts s
