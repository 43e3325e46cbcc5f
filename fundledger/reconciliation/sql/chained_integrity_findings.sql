-- Findings in chain order; rows older than the chain (without seq) are last. Rows: one per finding. Locks: none.
SELECT f.id, f.shard, f.account_number, f.slot, f.evidence, f.kind, f.subject, f.at, f.layout, f.seq, f.key_version, f.mac
FROM ledger.integrity_findings f ORDER BY f.seq, f.id
