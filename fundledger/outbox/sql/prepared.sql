-- The ids of prepared transactions (two-phase commit) of this database, lower 32 bits. Call after running.sql: a
-- transaction that was running then may be prepared now. Rows: one each. Locks: none.
SELECT p.transaction::text::bigint AS xid FROM pg_prepared_xacts p WHERE p.database = current_database()
