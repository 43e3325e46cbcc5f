-- Write the first MACs of fee rules. $1 versions of the rules, $2 MACs, $3 key version of the MACs. Rows: none. Locks:
-- these rows.
UPDATE fund.fee_rules f SET mac_key = $3, mac = n.mac FROM unnest($1::bigint[], $2::bytea[]) AS n (key, mac) WHERE f.version = n.key AND f.mac_key = 0
