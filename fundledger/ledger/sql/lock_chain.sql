-- Lock and read the head of an evidence chain. $1 name of the chain. Rows: one. Locks: the head, until the transaction ends.
SELECT c.name, c.seq, c.last_mac, c.key_version, c.mac FROM ledger.chains c WHERE c.name = $1 FOR NO KEY UPDATE
