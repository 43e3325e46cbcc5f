-- Take the leases of $1 names that have ended, for $2 seconds each. $3 the new owner. FOR UPDATE skips a lease while a
-- transaction of the previous owner holds it (standing.sql). Commits synchronously: after a crash that loses a token,
-- the next owner would get the same one. A lease also counts as ended if it ends more than a minute later than a new
-- one would: it was taken before the clock of the database was set back. Rows: one per taken lease, with its new
-- fencing token. Locks: these leases.
WITH ended AS (
    SELECT l.name, w.lease_s FROM daemons.leases l
    JOIN unnest($1::text[], $2::double precision[]) AS w (name, lease_s) ON w.name = l.name
    WHERE l.expires_at <= clock_timestamp() OR l.expires_at > clock_timestamp() + make_interval(secs => 60 + w.lease_s)
    ORDER BY l.name
    FOR UPDATE OF l SKIP LOCKED
)
UPDATE daemons.leases l
SET holder = $3, fence = l.fence + 1, taken_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => ended.lease_s)
FROM (SELECT set_config('synchronous_commit', 'on', true)) AS durable, ended
WHERE l.name = ended.name
RETURNING l.name, l.fence
