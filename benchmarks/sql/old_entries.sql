-- Insert two entries for each voucher with a number from $1 to $2, to make a ledger look old. Rows: none. Locks: none.
INSERT INTO ledger.entries (shard, account_number, slot, seq, voucher_id, amount, balance_after,
                            accounting_date, posted_at, key_version, mac, module)
SELECT 0, line.account_number, 0, line.seq, md5(n::text)::uuid, line.amount, line.seq * line.amount,
       date '2026-01-01' + (n / 100000)::integer,
       timestamptz '2026-01-01 00:00:00Z' + n * interval '1 millisecond', 1, decode(repeat('00', 32), 'hex'), 'dev'
FROM generate_series($1::bigint, $2::bigint) AS n
CROSS JOIN LATERAL (
    VALUES (2000000000, n + 1, -100), (2000000001 + n % 100000, n / 100000 + 1, 100)
) AS line (account_number, seq, amount)
