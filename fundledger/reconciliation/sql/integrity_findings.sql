-- Integrity findings: rows that did not match their MAC when the ledger read them. Rows: the first 100; `total` is the
-- number of all. Locks: none.
SELECT f.id AS finding, coalesce(f.kind || ' ' || f.subject, 'account ' || coalesce(a.id, '?') || ' (number ' || f.account_number || ') slot ' || f.slot) AS subject,
       f.account_number, f.slot, f.at::text AS at, a.id, count(*) OVER () AS total
FROM ledger.integrity_findings f LEFT JOIN ledger.accounts a ON a.number = f.account_number ORDER BY f.id LIMIT 100
