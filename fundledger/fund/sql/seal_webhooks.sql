-- Write the first MACs of webhooks. $1 ids of the webhooks, $2 MACs, $3 key version of the MACs. Rows: none. Locks:
-- these rows.
UPDATE outbox.webhooks w SET mac_key = $3, mac = n.mac FROM unnest($1::uuid[], $2::bytea[]) AS n (key, mac) WHERE w.id = n.key AND w.mac_key = 0
