-- Write the withdrawn amounts of merchants on days. $1 merchants, $2 days, $3 amounts, $4 MACs, $5 key version of the
-- MACs. Rows: none. Locks: these rows.
INSERT INTO fund.withdrawal_days AS d (merchant, day, amount, mac_key, mac)
SELECT w.merchant, w.day, w.amount, $5, w.mac
FROM unnest($1::text[], $2::date[], $3::bigint[], $4::bytea[]) AS w (merchant, day, amount, mac) ORDER BY w.merchant, w.day
ON CONFLICT (merchant, day) DO UPDATE SET amount = excluded.amount, mac_key = excluded.mac_key, mac = excluded.mac
