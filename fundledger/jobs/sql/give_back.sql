-- Release leases, so that another process can take them immediately. $1 names, $2 fencing tokens. Rows: none. Locks:
-- these leases.
UPDATE daemons.leases l SET holder = NULL, expires_at = clock_timestamp()
FROM unnest($1::text[], $2::bigint[]) AS b (name, fence) WHERE l.name = b.name AND l.fence = b.fence
