-- All accounts, each with the number of its sub-accounts. Rows: one per account. Locks: none.
SELECT a.number, a.id, a.owner, a.type, a.currency, a.shard, a.slots, a.buffered, a.metadata, a.created_at, a.key_version, a.mac,
       a.layout, a.module,
       (SELECT count(*) FROM ledger.sub_accounts s
        WHERE s.account_number = a.number AND s.shard BETWEEN 0 AND $1::integer - 1) AS sub_accounts,
       (SELECT s.slots FROM ledger.sub_accounts s
        WHERE s.account_number = a.number AND s.slot = 0 AND s.shard = a.shard) AS existing,
       (SELECT s.buffered FROM ledger.sub_accounts s
        WHERE s.account_number = a.number AND s.slot = 0 AND s.shard = a.shard) AS first_buffered
FROM ledger.accounts a
