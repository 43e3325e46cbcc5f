-- Read the fingerprints of the keys the ledger was written with. Rows: one per key version. Locks: none.
SELECT k.version, k.fingerprint FROM ledger.key_fingerprints k
