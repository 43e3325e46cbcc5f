-- Renew the leases that still stand, and record what was run under them since the last time.
-- $1 names, $2 fences, $3 for how many seconds, $4 good runs, $5 failed runs, $6 done, $7 lag in seconds, $8 seconds since
-- the last run began, $9 since the last good one ended, null for none since, $10 why the last one failed, null if it
-- did not. Rows: one per lease that stands. Locks: those leases, not against standing.sql.
UPDATE daemons.leases l
SET expires_at = clock_timestamp() + make_interval(secs => b.lease_s),
    runs = l.runs + b.runs + b.failures, failures = l.failures + b.failures, done = l.done + b.done,
    lag_s = CASE WHEN b.runs > 0 THEN b.lag_s ELSE l.lag_s END,
    last_started_at = coalesce(clock_timestamp() - make_interval(secs => b.started_s), l.last_started_at),
    last_success_at = coalesce(clock_timestamp() - make_interval(secs => b.success_s), l.last_success_at),
    last_error = CASE WHEN b.runs + b.failures > 0 THEN b.error ELSE l.last_error END
FROM unnest($1::text[], $2::bigint[], $3::double precision[], $4::bigint[], $5::bigint[], $6::bigint[],
            $7::double precision[], $8::double precision[], $9::double precision[], $10::text[])
    AS b (name, fence, lease_s, runs, failures, done, lag_s, started_s, success_s, error)
WHERE l.name = b.name AND l.fence = b.fence AND l.expires_at > clock_timestamp()
RETURNING l.name
