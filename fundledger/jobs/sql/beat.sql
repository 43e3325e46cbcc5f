-- Renew the leases that have not ended, and record the runs that were made under these leases since the last call. $1
-- names, $2 fencing tokens, $3 lease durations (s), $4 successful runs, $5 failed runs, $6 items done, $7 lag (s), $8
-- seconds since the last run began, $9 seconds since the last successful run ended, null if no run since the last call
-- was successful, $10 error of the last run, null if it succeeded. Commits asynchronously: if a crash loses a renewal,
-- the lease only ends earlier. Rows: one per renewed lease. Locks: these leases, in a mode that does not conflict with
-- standing.sql.
UPDATE daemons.leases l
SET expires_at = clock_timestamp() + make_interval(secs => b.lease_s),
    runs = l.runs + b.runs + b.failures, failures = l.failures + b.failures, done = l.done + b.done,
    lag_s = CASE WHEN b.runs > 0 THEN b.lag_s ELSE l.lag_s END,
    last_started_at = coalesce(clock_timestamp() - make_interval(secs => b.started_s), l.last_started_at),
    last_success_at = coalesce(clock_timestamp() - make_interval(secs => b.success_s), l.last_success_at),
    last_error = CASE WHEN b.runs + b.failures > 0 THEN b.error ELSE l.last_error END
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS soon,
     unnest($1::text[], $2::bigint[], $3::double precision[], $4::bigint[], $5::bigint[], $6::bigint[],
            $7::double precision[], $8::double precision[], $9::double precision[], $10::text[])
    AS b (name, fence, lease_s, runs, failures, done, lag_s, started_s, success_s, error)
WHERE l.name = b.name AND l.fence = b.fence AND l.expires_at > clock_timestamp()
RETURNING l.name
