-- Sub-accounts whose status differs from the last event of their account, and events of accounts without sub-accounts.
-- An account without an event is open. A suspect sub-account counts as frozen. Merged sub-accounts are not compared.
-- Rows: the first 100; `total` is the number of all. Locks: none.
WITH last AS (
    SELECT DISTINCT ON (e.account_number) e.account_number, e.status FROM ledger.account_events e
    ORDER BY e.account_number, e.id DESC
)
SELECT a.id, coalesce(s.account_number, l.account_number) AS account_number, s.slot, coalesce(l.status, 0) AS expected,
       CASE WHEN s.suspect THEN 4 ELSE s.status END AS actual, count(*) OVER () AS total
FROM ledger.sub_accounts s FULL JOIN last l ON l.account_number = s.account_number
LEFT JOIN ledger.accounts a ON a.number = coalesce(s.account_number, l.account_number)
WHERE CASE WHEN s.suspect THEN 4 ELSE s.status END IS DISTINCT FROM coalesce(l.status, 0) AND s.status IS DISTINCT FROM 5
ORDER BY account_number, slot LIMIT 100
