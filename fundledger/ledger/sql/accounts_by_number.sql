-- Read accounts by number.
-- $1 account numbers. Rows: one per number that exists. Locks: none.
SELECT a.number, a.id, a.owner, a.type, a.currency, a.shard, a.slots, a.buffered, a.metadata, a.created_at, a.key_version, a.mac,
       a.layout, a.module
FROM ledger.accounts a WHERE a.number = ANY ($1::bigint[])
