-- Lock and read the sub-accounts of a batch in one shard. `used`: the ids in $4 for which a voucher exists already.
-- $1 shard; $2 account numbers, $3 slots (aligned); $4 voucher ids of the whole batch.
-- Rows: one per sub-account; `used` is the same array in each row. Locks: the sub-accounts, until the transaction ends. A
-- transaction that buffers credits takes a shared key lock on slot 0. That lock does not conflict with the lock of this query.
SELECT s.account_number, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.status, s.key_version,
       s.last_entry_mac, s.mac, s.slots, s.buffered, s.suspect,
       (SELECT array_agg(v.id) FROM ledger.vouchers v WHERE v.id = ANY ($4::uuid[])) AS used
FROM unnest($2::bigint[], $3::integer[]) AS k (account_number, slot)
JOIN ledger.sub_accounts s ON s.account_number = k.account_number AND s.slot = k.slot
     AND s.shard + 0 = $1 -- with `+ 0` no index on shard is used: a plan made on a small table would permanently scan the whole shard
ORDER BY s.account_number, s.slot FOR NO KEY UPDATE OF s -- one global order, so that batches cannot deadlock
