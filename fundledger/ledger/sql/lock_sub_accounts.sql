-- Lock and read the sub-accounts that a batch touches in one shard, and which of its voucher ids are already used.
-- $1 shard; $2 account numbers, $3 slots (aligned); $4 voucher ids of the whole batch.
-- Rows: one per sub-account; `used` is the same array in each. Locks: those rows, until the transaction ends. A transaction
-- that buffers credits shares the key lock of slot 0, which blocks only a change of status or policy.
SELECT s.account_number, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.status, s.key_version,
       s.last_entry_mac, s.mac, s.slots, s.buffered, s.suspect,
       (SELECT array_agg(v.id) FROM ledger.vouchers v WHERE v.id = ANY ($4::uuid[])) AS used
FROM unnest($2::bigint[], $3::integer[]) AS k (account_number, slot)
JOIN ledger.sub_accounts s ON s.account_number = k.account_number AND s.slot = k.slot
     AND s.shard + 0 = $1 -- keeps the planner off the index: a plan made on a small table would scan the whole shard permanently
ORDER BY s.account_number, s.slot FOR NO KEY UPDATE OF s -- one global order, so that batches cannot deadlock
