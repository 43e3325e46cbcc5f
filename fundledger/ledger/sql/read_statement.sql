-- A page of an account's entries, over all its sub-accounts, oldest first. A summary has no type, and names its vouchers.
-- $1 account number; $2 shards, $3 slots, $4 seq after which to read, $5 last seq to read (aligned); $6 how many.
-- Rows: at most $6. Locks: none.
SELECT e.slot, e.seq, e.voucher_id, v.type, e.amount, e.balance_after, e.posted_at, e.accounting_date, e.vouchers
FROM (
    SELECT l.* FROM unnest($2::integer[], $3::integer[], $4::bigint[], $5::bigint[]) AS k (shard, slot, after, until)
    CROSS JOIN LATERAL (
        SELECT n.slot, n.seq, n.voucher_id, n.amount, n.balance_after, n.posted_at, n.accounting_date, n.vouchers
        FROM ledger.entries n
        WHERE n.shard = k.shard AND n.account_number = $1 AND n.slot = k.slot AND n.seq > k.after AND n.seq <= k.until
        ORDER BY n.seq LIMIT $6
    ) AS l
    ORDER BY l.posted_at, l.slot, l.seq LIMIT $6
) AS e
LEFT JOIN ledger.vouchers v ON v.id = e.voucher_id
ORDER BY e.posted_at, e.slot, e.seq
