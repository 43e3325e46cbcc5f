-- Integrity findings, in the order of the chain. Rows older than the chain have no seq and are last. Rows: one per
-- finding. Locks: none.
SELECT f.id, f.shard, f.account_number, f.slot, f.evidence, f.kind, f.subject, f.at, f.layout, f.seq, f.key_version, f.mac
FROM ledger.integrity_findings f ORDER BY f.seq, f.id
