-- Reload the server's settings. Rows: one. Locks: none.
SELECT pg_reload_conf()
