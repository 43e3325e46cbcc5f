-- Read sub-accounts of one shard without a lock. The query that writes the sub-accounts fails if one of them has changed
-- meanwhile.
-- $1 shard; $2 account numbers, $3 slots (aligned). Rows: one per sub-account. Locks: none.
SELECT s.account_number, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.status, s.key_version,
       s.last_entry_mac, s.mac, s.slots, s.buffered, s.suspect
FROM unnest($2::bigint[], $3::integer[]) AS k (account_number, slot)
JOIN ledger.sub_accounts s ON s.account_number = k.account_number AND s.slot = k.slot
     AND s.shard + 0 = $1 -- with `+ 0` no index on shard is used: a plan made on a small table would permanently scan the whole shard
