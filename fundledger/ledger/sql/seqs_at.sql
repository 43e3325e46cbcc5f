-- For each sub-account, read the seq of the last entry at or before a given time. The seq is 0 if there is no such entry.
-- $1 account number; $2 shards, $3 slots (aligned); $4 time. Rows: one per sub-account, in the order given. Locks: none.
SELECT ledger.seq_at(k.shard, $1, k.slot, $4) AS seq
FROM unnest($2::integer[], $3::integer[]) WITH ORDINALITY AS k (shard, slot, place) ORDER BY k.place
