-- Make the Postgres server reload its settings. Rows: one. Locks: none.
SELECT pg_reload_conf()
