-- Take the leases that have ended. $1 names of jobs, $2 duration of each lease (s), $3 the new owner. SKIP LOCKED skips
-- a lease while a transaction of the previous owner locks it (standing.sql). Commits synchronously: if a crash lost the
-- new fencing token, the next owner would get the same token. A lease also counts as ended if its end is more than a
-- minute after the end that a new lease would have. Such a lease was taken before the database's clock was set back.
-- Rows: one per taken lease, with its new fencing token. Locks: these leases.
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
