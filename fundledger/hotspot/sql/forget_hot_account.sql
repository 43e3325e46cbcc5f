-- Delete the heat of an account that is cold again. $1 account number. Rows: the id of the account. Locks: the row.
DELETE FROM ledger.hot_accounts WHERE account_number = $1
RETURNING (SELECT a.id FROM ledger.accounts a WHERE a.number = account_number) AS id
