-- The id before which all transactions have ended (`xmin`), and the written and flushed positions of the WAL. The
-- snapshot is older than the positions, so the commits that it covers are before `written`. Rows: one. Locks: none.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS written,
       (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed
