-- All findings, in chain order. Rows: one per finding. Locks: none.
SELECT f.seq, f.kind, f.key, f.evidence, f.at, f.key_version, f.mac FROM fund.integrity_findings f ORDER BY f.seq
