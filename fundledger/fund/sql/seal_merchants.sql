-- Write the first MACs of merchants. $1 ids of the merchants, $2 MACs, $3 key version of the MACs. Rows: none. Locks:
-- these rows.
UPDATE fund.merchants m SET mac_key = $3, mac = n.mac FROM unnest($1::text[], $2::bytea[]) AS n (key, mac) WHERE m.id = n.key AND m.mac_key = 0
