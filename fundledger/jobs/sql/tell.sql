-- Record the runs of jobs whose leader is elected without a lease. $1 names, $2 the leader, $3 seconds for which the
-- leader is assumed, $4 to $10 as in beat.sql. Rows: none. Locks: their leases.
UPDATE daemons.leases l
SET fence = l.fence + (l.holder IS DISTINCT FROM $2)::integer, holder = $2,
    taken_at = CASE WHEN l.holder IS DISTINCT FROM $2 THEN clock_timestamp() ELSE l.taken_at END,
    expires_at = clock_timestamp() + make_interval(secs => $3),
    runs = l.runs + b.runs + b.failures, failures = l.failures + b.failures, done = l.done + b.done,
    lag_s = CASE WHEN b.runs > 0 THEN b.lag_s ELSE l.lag_s END,
    last_started_at = coalesce(clock_timestamp() - make_interval(secs => b.started_s), l.last_started_at),
    last_success_at = coalesce(clock_timestamp() - make_interval(secs => b.success_s), l.last_success_at),
    last_error = b.error
FROM unnest($1::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::double precision[], $8::double precision[],
            $9::double precision[], $10::text[]) AS b (name, runs, failures, done, lag_s, started_s, success_s, error)
WHERE l.name = b.name
