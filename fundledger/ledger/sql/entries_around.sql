-- For each sub-account, read the entry with a given seq, the entry before it and the entry after it.
-- $1 account number; $2 shards, $3 slots, $4 seqs (aligned). Rows: at most three per sub-account, by slot and seq. Locks: none.
SELECT k.shard, e.slot, e.seq, e.voucher_id, e.vouchers, e.amount, e.balance_after, e.accounting_date, e.posted_at,
       e.key_version, e.mac, e.module, e.account_number
FROM unnest($2::integer[], $3::integer[], $4::bigint[]) AS k (shard, slot, seq)
JOIN ledger.entries e ON e.shard = k.shard AND e.account_number = $1 AND e.slot = k.slot
    AND e.seq BETWEEN k.seq - 1 AND k.seq + 1
ORDER BY e.slot, e.seq
