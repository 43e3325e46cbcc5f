-- An account's balance as it was: the last entry of each sub-account at that time, and the holds open then.
-- $1 account number, $2 the shards where it has sub-accounts, $3 time. Rows: one. Locks: none.
SELECT coalesce(sum(e.balance_after * s.normal), 0)::bigint AS posted,
       (SELECT coalesce(sum(h.amount), 0)::bigint FROM ledger.holds h
        WHERE h.account_number = $1 AND h.status <> 4 AND h.created_at <= $3
          AND (h.ended_at IS NULL OR h.ended_at > $3)) AS held
FROM ledger.sub_accounts s
LEFT JOIN ledger.entries e ON e.shard = s.shard AND e.account_number = s.account_number AND e.slot = s.slot
    AND e.seq = ledger.seq_at(s.shard, s.account_number, s.slot, $3)
WHERE s.shard = ANY ($2::integer[]) AND s.account_number = $1
