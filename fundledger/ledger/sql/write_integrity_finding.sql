-- A row whose MAC did not verify, as it was found.
-- $1 shard, $2 account number, $3 slot, $4 evidence. Rows: none. Locks: none.
INSERT INTO ledger.integrity_findings (shard, account_number, slot, evidence) VALUES ($1, $2, $3, $4)
