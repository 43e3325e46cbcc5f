-- The ids (lower 32 bits) of transactions that run on connections to this database. Rows: one for each such transaction
-- that has written something, except the transaction of this statement. Locks: none.
SELECT a.backend_xid::text::bigint AS xid
FROM pg_stat_activity a
WHERE a.backend_xid IS NOT NULL
  AND a.datid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND a.pid <> pg_backend_pid()
