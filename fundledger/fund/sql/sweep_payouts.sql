-- Write MACs of payouts. The caller holds the locks of the rows. $1 orders, $2 MACs, $3 key version of the MACs. Rows:
-- none. Locks: these rows.
UPDATE fund.payouts p SET mac_key = $3, mac = n.mac FROM unnest($1::uuid[], $2::bytea[]) AS n (id, mac) WHERE p.order_id = n.id
