-- The ids (lower 32 bits) of prepared transactions (two-phase commit) of this database. Execute this after running.sql:
-- a transaction that was running then may be prepared now. Rows: one per prepared transaction. Locks: none.
SELECT p.transaction::text::bigint AS xid FROM pg_prepared_xacts p WHERE p.database = current_database()
