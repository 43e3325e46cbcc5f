-- Which of these rows already have a finding. $1 kinds, $2 keys, pairwise. Rows: kind and key of each row with a
-- finding. Locks: none.
SELECT f.kind, f.key FROM unnest($1::text[], $2::text[]) AS w (kind, key)
JOIN fund.integrity_findings f ON f.kind = w.kind AND f.key = w.key
