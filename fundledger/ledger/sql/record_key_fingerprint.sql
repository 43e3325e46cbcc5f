-- Record the fingerprint of a key. $1 key version, $2 fingerprint. Rows: none. Locks: none.
INSERT INTO ledger.key_fingerprints (version, fingerprint) VALUES ($1, $2)
