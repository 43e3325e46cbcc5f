-- Read the shards and slots of an account's sub-accounts. $1 account number, $2 shards to search.
-- Rows: one per sub-account, ordered by shard and slot. Locks: none.
SELECT s.shard, s.slot FROM ledger.sub_accounts s
WHERE s.shard = ANY ($2::integer[]) AND s.account_number = $1 ORDER BY s.shard, s.slot
