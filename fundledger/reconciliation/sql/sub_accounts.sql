-- All sub-accounts with the data of their accounts, in the same order as entries.sql. Rows: one per sub-account. Locks:
-- none.
SELECT s.shard, s.account_number, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.normal, s.bounded,
       s.status, s.key_version, s.last_entry_mac, s.mac, s.slots, s.buffered, a.id, a.type, a.currency
FROM ledger.sub_accounts s LEFT JOIN ledger.accounts a ON a.number = s.account_number
ORDER BY s.shard, s.account_number, s.slot
