-- Findings in the order of their chain; those of before it, which have no seq, last. Rows: one each. Locks: none.
SELECT f.id, f.shard, f.account_number, f.slot, f.evidence, f.kind, f.subject, f.at, f.layout, f.seq, f.key_version, f.mac
FROM ledger.integrity_findings f ORDER BY f.seq, f.id
