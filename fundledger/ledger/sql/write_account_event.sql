-- Record a change of an account's status and its reason.
-- $1 account number, $2 status, $3 reason, $4 module, $5 time, $6 seq in the chain, $7 key version, $8 MAC.
-- Rows: none. Locks: none; the caller has locked the head of the chain.
INSERT INTO ledger.account_events (account_number, status, reason, module, at, seq, key_version, mac, layout)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 2)
