-- Why an account's status changed.
-- $1 account number, $2 status, $3 reason, $4 module. Rows: none. Locks: none.
INSERT INTO ledger.account_events (account_number, status, reason, module) VALUES ($1, $2, $3, $4)
