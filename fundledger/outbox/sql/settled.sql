-- Which transactions have all ended (those before `xmin`), and how far the log has been written and flushed since then.
-- The snapshot is older than the rest, so what had ended in it is before `written`. Rows: one. Locks: none.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS written,
       (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed
