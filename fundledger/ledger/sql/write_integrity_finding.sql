-- Record a finding: a row that did not verify, as it was found.
-- $1 shard, $2 account number, $3 slot, $4 evidence, $5 kind, $6 subject, $7 time, $8 seq in the chain, $9 key version,
-- $10 MAC. Rows: none. Locks: none; the caller has locked the head of the chain.
INSERT INTO ledger.integrity_findings (shard, account_number, slot, evidence, kind, subject, at, seq, key_version, mac, layout)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 2)
