-- The status of all jobs. `age_s`: seconds since the last success, or since the registration if there was no success.
-- Rows: one per job. Locks: none.
SELECT l.name, CASE WHEN l.expires_at > clock_timestamp() THEN l.holder END AS holder, l.fence, l.taken_at, l.alarm_after_s,
       l.last_started_at, l.last_success_at, l.last_error, l.lag_s, l.runs, l.failures, l.done,
       extract(epoch FROM clock_timestamp() - coalesce(l.last_success_at, l.known_since))::double precision AS age_s
FROM daemons.leases l ORDER BY l.name
