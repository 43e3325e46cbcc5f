-- Version of Postgres. Rows: one. Locks: none.
SHOW server_version
