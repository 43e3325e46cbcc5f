-- Record by which order each of these orders is reversed, or clear this after a refusal. $1 orders, $2 reversing orders
-- (null: none), $3 new MACs, $4 key version of the MACs. Rows: none. Locks: these orders.
UPDATE fund.orders o SET reversed_by = r.by, mac = r.mac, mac_key = $4
FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS r (original, by, mac) WHERE o.id = r.original
