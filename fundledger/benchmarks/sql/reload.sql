-- Have the server read its settings again. Rows: one. Locks: none.
SELECT pg_reload_conf()
