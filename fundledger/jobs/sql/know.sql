-- Register jobs and their bounds. A job without a success for longer than its bound is overdue. $1 names, $2 bounds
-- (s). Rows: none. Locks: their leases.
INSERT INTO daemons.leases (name, alarm_after_s)
SELECT k.name, k.alarm_after_s FROM unnest($1::text[], $2::double precision[]) AS k (name, alarm_after_s) ORDER BY k.name
ON CONFLICT (name) DO UPDATE SET alarm_after_s = EXCLUDED.alarm_after_s
WHERE leases.alarm_after_s <> EXCLUDED.alarm_after_s
