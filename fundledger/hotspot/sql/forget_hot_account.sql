-- Delete the heat of an account that is cold again. $1 account number. Rows: none. Locks: the row.
DELETE FROM ledger.hot_accounts WHERE account_number = $1
