-- Read a page of an account's entries on all sub-accounts, oldest first. `extra` is NULL for an entry that is exactly one line.
-- Otherwise `extra` is the number of lines minus the number of entries of the sub-account, up to and including this entry.
-- $1 account number; $2 shards, $3 slots, $4 seq after which to read, $5 last seq to read (aligned); $6 maximum number of rows.
-- Rows: at most $6. Locks: none.
SELECT e.*, c.extra
FROM (
    SELECT l.* FROM unnest($2::integer[], $3::integer[], $4::bigint[], $5::bigint[]) AS k (shard, slot, after, until)
    CROSS JOIN LATERAL (
        SELECT n.shard, n.slot, n.seq, n.voucher_id, n.vouchers, n.amount, n.balance_after, n.accounting_date, n.posted_at,
               n.key_version, n.mac, n.module, n.account_number
        FROM ledger.entries n
        WHERE n.shard = k.shard AND n.account_number = $1 AND n.slot = k.slot AND n.seq > k.after AND n.seq <= k.until
        ORDER BY n.seq LIMIT $6
    ) AS l
    ORDER BY l.posted_at, l.slot, l.seq LIMIT $6
) AS e
LEFT JOIN ledger.line_counts c ON c.account_number = $1 AND c.slot = e.slot AND c.seq = e.seq
ORDER BY e.posted_at, e.slot, e.seq
