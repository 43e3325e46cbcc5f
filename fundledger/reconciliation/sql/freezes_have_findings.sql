-- Accounts that are frozen because a row did not match its MAC, and that have no stored finding. In this case evidence
-- was deleted. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT a.id, s.account_number, count(*) OVER () AS total
FROM (SELECT DISTINCT f.account_number FROM ledger.sub_accounts f WHERE f.status = 4 OR f.suspect
      UNION SELECT e.account_number FROM ledger.account_events e WHERE e.status = 4) AS s
LEFT JOIN ledger.accounts a ON a.number = s.account_number
WHERE NOT EXISTS (SELECT 1 FROM ledger.integrity_findings i WHERE i.account_number = s.account_number)
ORDER BY s.account_number LIMIT 100
