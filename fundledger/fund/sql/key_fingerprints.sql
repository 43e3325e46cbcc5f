-- The keys that the fund database was written with. Rows: one per key version. Locks: none.
SELECT k.version, k.fingerprint FROM fund.key_fingerprints k
