-- Settle all accepted refunds now (SQLite). ?1 now (ms). Rows: none. Locks: the database file.
UPDATE refunds SET settles_ms = ?1 WHERE settles_ms > ?1
