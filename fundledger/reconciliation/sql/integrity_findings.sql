-- Rows that were found not to match their MAC. Rows: the first 100. Locks: none.
SELECT f.id, f.account_number, f.slot, f.at::text AS at FROM ledger.integrity_findings f ORDER BY f.id LIMIT 100
