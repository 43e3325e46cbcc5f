-- Lock and read an account that will be changed.
-- $1 account number. Rows: one. Locks: the account; the caller has locked its slot 0.
SELECT a.number, a.id, a.owner, a.type, a.currency, a.shard, a.slots, a.buffered, a.metadata, a.created_at, a.key_version, a.mac,
       a.layout, a.module
FROM ledger.accounts a WHERE a.number = $1 FOR NO KEY UPDATE
