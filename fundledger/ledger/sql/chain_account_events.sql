-- Add to the chain an account event that was written before chains existed. $1 id, $2 seq, $3 key version, $4 MAC.
-- Rows: none. Locks: the row; the caller has locked the head of the chain.
UPDATE ledger.account_events SET seq = $2, key_version = $3, mac = $4, layout = 2 WHERE id = $1 AND layout = 1
