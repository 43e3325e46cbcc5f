-- Read the key versions of all sub-accounts, in a ledger that has no key fingerprints. Rows: one per version. Locks: none.
-- Scans all sub-accounts.
SELECT DISTINCT s.key_version FROM ledger.sub_accounts s
