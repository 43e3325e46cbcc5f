-- Read the fingerprints of the keys with which the ledger was written. Rows: one per key version. Locks: none.
SELECT k.version, k.fingerprint FROM ledger.key_fingerprints k
