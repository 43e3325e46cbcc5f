-- Changes of accounts' status in chain order; rows older than the chain (without seq) are last. Rows: one per change.
-- Locks: none.
SELECT e.id, e.account_number, e.status, e.reason, e.module, e.at, e.layout, e.seq, e.key_version, e.mac
FROM ledger.account_events e ORDER BY e.seq, e.id
