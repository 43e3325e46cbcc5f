-- What all accounts of a currency sum to: nothing. Rows: one per currency. Locks: none.
SELECT a.currency, sum(s.posted)::text AS total, count(*) AS sub_accounts
FROM ledger.sub_accounts s JOIN ledger.accounts a ON a.number = s.account_number GROUP BY a.currency ORDER BY a.currency
