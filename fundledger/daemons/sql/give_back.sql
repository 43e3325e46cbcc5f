-- Somebody else may have these leases at once. $1 names, $2 fences. Rows: none. Locks: those leases.
UPDATE daemons.leases l SET holder = NULL, expires_at = clock_timestamp()
FROM unnest($1::text[], $2::bigint[]) AS b (name, fence) WHERE l.name = b.name AND l.fence = b.fence
