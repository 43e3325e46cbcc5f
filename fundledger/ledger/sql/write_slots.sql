-- How many slots an account has, told by its slot 0, whose MAC was written for it by write_batch.
-- $1 shard, $2 account number, $3 slots. Rows: none. Locks: slot 0, held by the caller.
UPDATE ledger.sub_accounts SET slots = $3 WHERE shard = $1 AND account_number = $2 AND slot = 0
