-- All findings, in order. Rows: one each. Locks: none.
SELECT f.seq, f.kind, f.key, f.evidence, f.at, f.key_version, f.mac FROM fund.integrity_findings f ORDER BY f.seq
