-- Read accounts by id.
-- $1 ids. Rows: one per id that exists. Locks: none.
SELECT a.number, a.id, a.owner, a.type, a.currency, a.shard, a.slots, a.buffered, a.metadata, a.created_at, a.key_version, a.mac,
       a.layout, a.module
FROM ledger.accounts a WHERE a.id = ANY ($1::text[])
