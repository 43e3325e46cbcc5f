-- Write the debts of merchants. The caller holds the locks of the rows. $1 merchants, $2 debts, $3 MACs, $4 key version of
-- the MACs. Rows: none. Locks: these rows.
UPDATE fund.debts d SET owed = n.owed, mac = n.mac, mac_key = $4
FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS n (merchant, owed, mac) WHERE d.merchant = n.merchant
