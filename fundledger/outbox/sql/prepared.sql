-- The ids of the transactions of this database that are prepared (two-phase commit), 32 bits of each.
-- To be asked after running.sql: what was on a connection then may be prepared by now. Rows: one each. Locks: none.
SELECT p.transaction::text::bigint AS xid FROM pg_prepared_xacts p WHERE p.database = current_database()
