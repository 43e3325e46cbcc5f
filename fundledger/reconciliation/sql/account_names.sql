-- Ids and currencies of accounts. $1 account numbers. Rows: one per account that exists. Locks: none.
SELECT a.number, a.id, a.currency FROM ledger.accounts a WHERE a.number = ANY ($1::bigint[])
