-- Insert the vouchers with the numbers $1 to $2, between otherwise unused accounts, to make a ledger look old. Rows:
-- none. Locks: none. The MACs of these vouchers are zeros, so the database never verifies: use it for measurements
-- only.
INSERT INTO ledger.vouchers (shard, id, module, type, digest, lines, batch, accounting_date, posted_at, key_version, mac)
SELECT 0, md5(n::text)::uuid, 'dev', 'pay', decode(repeat('00', 32), 'hex'),
       ARRAY[2000000000, -100, 2000000001 + n % 100000, 100], n / 64, date '2026-01-01' + (n / 100000)::integer,
       timestamptz '2026-01-01 00:00:00Z' + n * interval '1 millisecond', 1, decode(repeat('00', 32), 'hex')
FROM generate_series($1::bigint, $2::bigint) AS n
