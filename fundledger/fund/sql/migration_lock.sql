-- Serialize migrations. $1 lock number. Rows: one. Locks: an advisory lock, until the transaction ends.
SELECT pg_advisory_xact_lock($1::bigint)
