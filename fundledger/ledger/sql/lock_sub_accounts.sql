-- Lock and read the sub-accounts that a batch touches in one shard, and tell which of its voucher ids are used already.
-- $1 shard; $2 account numbers, $3 slots (aligned); $4 voucher ids of the whole batch.
-- Rows: one per sub-account; `used` is the same array in each. Locks: those rows, until the transaction ends; whoever
-- buffers credits of an account shares the key of its slot 0, and only a change of status or policy waits for that.
SELECT s.account_number, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.status, s.key_version,
       s.last_entry_mac, s.mac, s.slots, s.buffered, s.suspect,
       (SELECT array_agg(v.id) FROM ledger.vouchers v WHERE v.id = ANY ($4::uuid[])) AS used
FROM unnest($2::bigint[], $3::integer[]) AS k (account_number, slot)
JOIN ledger.sub_accounts s ON s.account_number = k.account_number AND s.slot = k.slot
     AND s.shard + 0 = $1 -- not by the index: whoever planned this on a small table would walk the whole shard for ever
ORDER BY s.account_number, s.slot FOR NO KEY UPDATE OF s -- one order for everybody, so that no two batches can wait for each other
