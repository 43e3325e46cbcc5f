-- Replace an account's MAC of layout 1 by a MAC of layout 2, if the row has not changed since it was verified.
-- $1 account number, $2 old MAC, $3 slots, $4 buffered, $5 key version, $6 new MAC. Rows: none. Locks: the account.
UPDATE ledger.accounts SET layout = 2, key_version = $5, mac = $6
WHERE number = $1 AND layout = 1 AND mac = $2 AND slots = $3 AND buffered = $4
