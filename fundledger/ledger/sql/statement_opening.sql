-- What an account held, signed, when each sub-account stood at a given seq.
-- $1 account number; $2 shards, $3 slots, $4 seq (aligned). Rows: one. Locks: none.
SELECT coalesce(sum(e.balance_after), 0)::bigint AS posted
FROM unnest($2::integer[], $3::integer[], $4::bigint[]) AS k (shard, slot, seq)
JOIN ledger.entries e ON e.shard = k.shard AND e.account_number = $1 AND e.slot = k.slot AND e.seq = k.seq
