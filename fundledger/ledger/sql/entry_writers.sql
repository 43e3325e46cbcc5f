-- The transactions that have an id, may have written entries, and are not over: their ids, of 32 bits. One without an id has
-- written nothing yet, and looks at the mark of statements later than now.
-- Rows: one per id. Locks: none; the view looks at all locks of the server under their latches, so it is read once for a wait.
SELECT unnest(array_agg(l.transactionid::text::bigint) FILTER (WHERE l.locktype = 'transactionid')) AS id
FROM pg_locks l
WHERE l.granted AND l.pid <> pg_backend_pid() AND (
    (l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock')
    OR (l.locktype = 'relation' AND l.relation = 'ledger.entries'::regclass AND l.mode = 'RowExclusiveLock'
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
)
GROUP BY l.virtualtransaction HAVING bool_or(l.locktype = 'relation')
