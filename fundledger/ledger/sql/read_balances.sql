-- What an account's sub-accounts hold together, in one statement, so that nothing is counted twice or missed.
-- $1 account number, $2 the shards where it has some. Rows: one. Locks: none.
SELECT coalesce(sum(s.posted * s.normal), 0)::bigint AS posted, coalesce(sum(s.held), 0)::bigint AS held,
       coalesce(sum(s.version), 0)::bigint AS version, count(*)::integer AS sub_accounts,
       coalesce(max(s.status), 0)::smallint AS status
FROM ledger.sub_accounts s WHERE s.shard = ANY ($2::integer[]) AND s.account_number = $1
