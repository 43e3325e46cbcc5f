-- Insert a finding: a row that does not match its MAC. $1 seq, $2 kind, $3 key, $4 evidence (JSON), $5 time, $6 key
-- version, $7 MAC. Rows: none. Locks: the new row.
INSERT INTO fund.integrity_findings (seq, kind, key, evidence, at, key_version, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)
