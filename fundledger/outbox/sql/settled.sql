-- `xmin`: all transactions with smaller ids have ended. `written` and `flushed`: the positions up to which the WAL is
-- written and flushed. `xmin` is read before the positions, so the commits of all ended transactions are before
-- `written`. Rows: one. Locks: none.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS written,
       (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed
