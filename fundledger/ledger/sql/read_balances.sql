-- What an account's sub-accounts hold together, in one statement, so that nothing is counted twice or missed.
-- $1 account number, $2 the shards where it has some. Rows: one. Locks: none.
SELECT coalesce(sum(s.posted * s.normal), 0)::bigint AS posted, coalesce(sum(s.held), 0)::bigint AS held,
       coalesce(sum(s.version), 0)::bigint AS version,
       count(*) FILTER (WHERE s.status <> 5)::integer AS sub_accounts, -- 5: merged
       coalesce(max(s.status) FILTER (WHERE s.status <> 5), 0)::smallint AS status,
       (SELECT coalesce(sum(b.amount), 0)::bigint FROM ledger.buffered_entries b WHERE b.account_number = $1) AS pending,
       coalesce((SELECT h.state FROM ledger.hot_accounts h WHERE h.account_number = $1), 'cold') AS heat
FROM ledger.sub_accounts s WHERE s.shard = ANY ($2::integer[]) AND s.account_number = $1
