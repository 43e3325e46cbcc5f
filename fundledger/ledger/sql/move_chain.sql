-- Advance the head of an evidence chain.
-- $1 name of the chain, $2 seq and $3 MAC of the last row, $4 key version, $5 MAC of the head.
-- Rows: none. Locks: the head, which the caller has already locked.
UPDATE ledger.chains SET seq = $2, last_mac = $3, key_version = $4, mac = $5 WHERE name = $1
