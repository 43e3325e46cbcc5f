-- Where a statement begins and ends on each sub-account.
-- $1 account number, $2 shards, $3 slots (aligned), $4 first moment or null, $5 last moment or null.
-- Rows: one per sub-account, in the order given. Locks: none.
SELECT CASE WHEN $4::timestamptz IS NULL THEN 0
            ELSE ledger.seq_at(k.shard, $1, k.slot, $4 - interval '1 microsecond') END AS after,
       CASE WHEN $5::timestamptz IS NULL THEN 9223372036854775807
            ELSE ledger.seq_at(k.shard, $1, k.slot, $5) END AS until
FROM unnest($2::integer[], $3::integer[]) WITH ORDINALITY AS k (shard, slot, place) ORDER BY k.place
