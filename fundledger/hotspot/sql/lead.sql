-- Try to become the leader until this connection ends. $1 key. Rows: one. Locks: the advisory lock.
SELECT pg_try_advisory_lock($1::integer) AS leads
