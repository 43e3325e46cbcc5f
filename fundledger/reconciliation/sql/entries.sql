-- All entries of the journal, ordered by sub-account and seq. Rows: one per entry. Locks: none.
SELECT e.shard, e.account_number, e.slot, e.seq, e.voucher_id, e.amount, e.balance_after, e.accounting_date, e.posted_at,
       e.key_version, e.mac, e.vouchers, e.module
FROM ledger.entries e ORDER BY e.shard, e.account_number, e.slot, e.seq
