-- Write the returned amounts of withdrawals. The caller holds the locks of the withdrawals. $1 withdrawals, $2 returned
-- amounts, $3 new MACs, $4 key version of the MACs. Rows: none. Locks: these orders.
UPDATE fund.orders o SET returned = r.returned, mac = r.mac, mac_key = $4
FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS r (id, returned, mac) WHERE o.id = r.id
