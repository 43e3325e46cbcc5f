-- Stop the alarms of jobs that are not among $1, unless a process runs them. Rows: none. Locks: their leases.
UPDATE daemons.leases SET alarm_after_s = 'Infinity'
WHERE name <> ALL ($1::text[]) AND expires_at <= clock_timestamp() AND alarm_after_s < 'Infinity'
