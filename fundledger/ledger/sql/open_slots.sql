-- Insert empty slots of an account that is being split.
-- $1 shard, $2 account number, $3 normal, $4 bounded, $5 key version, $6 last_entry_mac of a slot without entries;
-- $7 slots, $8 MACs (aligned); $9 time of opening (us).
-- Rows: none. Locks: the new rows; the caller has locked slot 0, so no other transaction inserts slots of the account.
INSERT INTO ledger.sub_accounts (shard, account_number, slot, posted, held, version, seq, posted_at_us, normal, bounded,
                                 status, key_version, last_entry_mac, mac)
SELECT $1, $2, s.slot, 0, 0, 0, 0, $9, $3, $4, 0, $5, $6, s.mac
FROM unnest($7::integer[], $8::bytea[]) AS s (slot, mac)
