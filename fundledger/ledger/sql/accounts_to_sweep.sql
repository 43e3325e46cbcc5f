-- Read accounts whose MAC has layout 1, with the number of slots in the slot map and the buffering policy of slot 0.
-- $1 account number after which to read, $2 maximum number of rows. Rows: ordered by account number. Locks: none.
SELECT a.number, a.id, a.owner, a.type, a.currency, a.shard, a.slots, a.buffered, a.metadata, a.created_at, a.key_version, a.mac,
       a.layout, a.module,
       (SELECT r.slots FROM ledger.routes r WHERE r.account_number = a.number) AS route_slots,
       (SELECT s.buffered FROM ledger.sub_accounts s
        WHERE s.account_number = a.number AND s.slot = 0 AND s.shard = a.shard) AS first_buffered
FROM ledger.accounts a WHERE a.layout = 1 AND a.number > $1 ORDER BY a.number LIMIT $2
