-- Return the version of Postgres. Rows: one. Locks: none.
SHOW server_version
