-- Read whether a finding of this kind and subject exists. $1 kind, $2 subject. Rows: one. Locks: none.
SELECT EXISTS (SELECT FROM ledger.integrity_findings f WHERE f.kind = $1 AND f.subject = $2 AND f.subject IS NOT NULL)
