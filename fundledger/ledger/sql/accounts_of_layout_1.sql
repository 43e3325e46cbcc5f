-- Read accounts by number, in a schema without the column `layout`.
-- $1 account numbers. Rows: one per number that exists. Locks: none.
SELECT a.number, a.id, a.owner, a.type, a.currency, a.metadata, a.created_at, a.key_version, a.mac
FROM ledger.accounts a WHERE a.number = ANY ($1::bigint[])
