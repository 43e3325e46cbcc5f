-- Sum over all accounts of a currency, including their buffered credits. The sum must be zero. Rows: one per currency.
-- Locks: none.
SELECT a.currency, sum(s.posted)::text AS total, count(*) AS sub_accounts
FROM (
    SELECT account_number, posted FROM ledger.sub_accounts UNION ALL
    SELECT account_number, amount FROM ledger.buffered_entries
) AS s JOIN ledger.accounts a ON a.number = s.account_number GROUP BY a.currency ORDER BY a.currency
