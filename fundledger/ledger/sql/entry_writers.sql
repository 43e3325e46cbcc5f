-- Read the ids (32 bits) of open transactions that may have written entries. A transaction without an id has written nothing
-- yet, and will read the statement mark after this query.
-- Rows: one per id. Locks: none. Reading pg_locks takes all lock manager latches of the server, so run this query only once for
-- each wait.
SELECT unnest(array_agg(l.transactionid::text::bigint) FILTER (WHERE l.locktype = 'transactionid')) AS id
FROM pg_locks l
WHERE l.granted AND l.pid <> pg_backend_pid() AND (
    (l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock')
    OR (l.locktype = 'relation' AND l.relation = 'ledger.entries'::regclass AND l.mode = 'RowExclusiveLock'
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
)
GROUP BY l.virtualtransaction HAVING bool_or(l.locktype = 'relation')
