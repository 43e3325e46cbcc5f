-- Read the sub-accounts and buffered credits of several accounts, in one query.
-- $1 account numbers. Rows: the rows of read_balances.sql for each account, with the account number. Locks: none.
SELECT k.number AS account_number, r.*
FROM unnest($1::bigint[]) AS k (number)
CROSS JOIN LATERAL (
    (
        SELECT s.shard, s.slot, s.posted, s.held, s.version, s.seq, s.posted_at_us, s.status, s.key_version, s.last_entry_mac,
               s.mac, s.slots, s.buffered, s.normal, s.bounded, s.suspect, j.seq AS journal_seq, j.mac AS journal_mac, NULL::uuid AS voucher_id,
               NULL::date AS accounting_date, NULL::timestamptz AS posted_at, NULL::text AS module,
               coalesce((SELECT h.state FROM ledger.hot_accounts h WHERE h.account_number = k.number), 'cold') AS heat
        FROM ledger.sub_accounts s
        LEFT JOIN LATERAL (
            SELECT e.seq, e.mac FROM ledger.entries e
            WHERE e.shard = s.shard AND e.account_number = s.account_number AND e.slot = s.slot ORDER BY e.seq DESC LIMIT 1
        ) AS j ON true
        WHERE s.account_number = k.number ORDER BY s.slot, s.shard
    )
    UNION ALL
    (
        SELECT NULL, b.number, b.amount, b.batch, NULL, b.of, NULL, NULL, b.key_version, NULL, b.mac, NULL, NULL, NULL, NULL, NULL, NULL,
               NULL, b.voucher_id, b.accounting_date, b.posted_at, b.module, NULL
        FROM ledger.buffered_entries b WHERE b.account_number = k.number ORDER BY b.batch, b.number
    )
) AS r
