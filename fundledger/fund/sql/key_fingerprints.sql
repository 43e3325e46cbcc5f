-- Fingerprints of the keys under which MACs of the fund database were computed. Rows: one per key version. Locks: none.
SELECT k.version, k.fingerprint FROM fund.key_fingerprints k
