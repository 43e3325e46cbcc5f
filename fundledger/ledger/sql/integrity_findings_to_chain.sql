-- Read findings that were written before chains existed. $1 maximum number of rows. Rows: oldest first. Locks: none.
SELECT f.id, f.shard, f.account_number, f.slot, f.evidence, f.kind, f.subject, f.at FROM ledger.integrity_findings f
WHERE f.layout = 1 ORDER BY f.id LIMIT $1
