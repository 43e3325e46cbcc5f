-- Record a key of the database. $1 key version, $2 fingerprint. Rows: none. Locks: none.
INSERT INTO fund.key_fingerprints (version, fingerprint) VALUES ($1, $2)
