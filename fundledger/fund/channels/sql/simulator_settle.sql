-- Settle all accepted payouts now (SQLite). ?1 now (ms). Rows: none. Locks: the database file.
UPDATE payouts SET settles_ms = ?1 WHERE settles_ms > ?1
