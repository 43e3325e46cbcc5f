-- Insert a finding about a row that does not match its MAC. $1 seq of the finding, $2 kind of the row, $3 key of the
-- row, $4 evidence (JSON), $5 time, $6 key version of the MAC, $7 MAC of the finding. Rows: none. Locks: the new row.
INSERT INTO fund.integrity_findings (seq, kind, key, evidence, at, key_version, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)
