-- The transactions that may have written entries and are not over. Rows: one per transaction. Locks: none.
SELECT DISTINCT l.virtualtransaction AS transaction FROM pg_locks l
WHERE l.locktype = 'relation' AND l.relation = 'ledger.entries'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND l.pid <> pg_backend_pid()
