-- Read an account's sub-accounts, each with its last entry, and the account's buffered credits. All rows are read by one query,
-- so that a credit that is drained meanwhile is neither missed nor counted twice. $1 account number.
-- Rows: one per sub-account, in all shards, ordered by slot; then one per buffered credit. In the row of a buffered
-- credit, shard is NULL, slot is the number, held is the batch, seq is `of`, and posted is the amount. Locks: none.
(
    SELECT s.shard, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.status, s.key_version, s.last_entry_mac,
           s.mac, s.slots, s.buffered, s.normal, s.bounded, s.suspect, j.seq AS journal_seq, j.mac AS journal_mac, NULL::uuid AS voucher_id,
           NULL::date AS accounting_date, NULL::timestamptz AS posted_at, NULL::text AS module,
           coalesce((SELECT h.state FROM ledger.hot_accounts h WHERE h.account_number = $1), 'cold') AS heat
    FROM ledger.sub_accounts s
    LEFT JOIN LATERAL (
        SELECT e.seq, e.mac FROM ledger.entries e
        WHERE e.shard = s.shard AND e.account_number = s.account_number AND e.slot = s.slot ORDER BY e.seq DESC LIMIT 1
    ) AS j ON true
    WHERE s.account_number = $1 ORDER BY s.slot, s.shard
)
UNION ALL
(
    SELECT NULL, b.number, b.amount, b.batch, NULL, b.of, NULL, NULL, b.key_version, NULL, b.mac, NULL, NULL, NULL, NULL, NULL, NULL,
           NULL, b.voucher_id, b.accounting_date, b.posted_at, b.module, NULL
    FROM ledger.buffered_entries b WHERE b.account_number = $1 ORDER BY b.batch, b.number
)
