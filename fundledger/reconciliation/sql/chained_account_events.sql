-- Changes of accounts' status in the order of their chain; those of before it, which have no seq, last. Rows: one each.
-- Locks: none.
SELECT e.id, e.account_number, e.status, e.reason, e.module, e.at, e.layout, e.seq, e.key_version, e.mac
FROM ledger.account_events e ORDER BY e.seq, e.id
