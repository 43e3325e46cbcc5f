-- Changes of the status of accounts, in the order of the chain. Rows older than the chain have no seq and are last.
-- Rows: one per change. Locks: none.
SELECT e.id, e.account_number, e.status, e.reason, e.module, e.at, e.layout, e.seq, e.key_version, e.mac
FROM ledger.account_events e ORDER BY e.seq, e.id
