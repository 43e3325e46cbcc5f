-- Read the key versions that occur in sub-accounts. Used for a ledger without key fingerprints.
-- Rows: one per version. Locks: none. Scans all sub-accounts.
SELECT DISTINCT s.key_version FROM ledger.sub_accounts s
