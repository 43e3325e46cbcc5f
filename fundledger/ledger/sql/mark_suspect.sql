-- Mark a sub-account that did not verify as suspect. The row is kept as found, because a new MAC would certify its amounts.
-- $1 shard, $2 account number, $3 slot. Rows: none. Locks: the row, which the caller has already locked.
UPDATE ledger.sub_accounts SET suspect = true
WHERE account_number = $2 AND slot = $3 AND shard + 0 = $1 AND NOT suspect
