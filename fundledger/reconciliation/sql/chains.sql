-- Heads of all evidence chains. Rows: one per chain. Locks: none.
SELECT c.name, c.seq, c.last_mac, c.key_version, c.mac FROM ledger.chains c ORDER BY c.name
