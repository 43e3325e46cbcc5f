-- A row that did not verify is kept as it was found, and frozen by a mark beside it: its figures get no fresh MAC.
-- $1 shard, $2 account number, $3 slot. Rows: none. Locks: the row, which the caller has locked before.
UPDATE ledger.sub_accounts SET suspect = true
WHERE account_number = $2 AND slot = $3 AND shard + 0 = $1 AND NOT suspect
