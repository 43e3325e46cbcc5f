-- Orders are reversed by others, written ahead, or are not, since those were refused. $1 orders, $2 by which (null: by none), $3 their
-- MACs then, $4 the key of these. Rows: none. Locks: these orders.
UPDATE fund.orders o SET reversed_by = r.by, mac = r.mac, mac_key = $4
FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS r (original, by, mac) WHERE o.id = r.original
