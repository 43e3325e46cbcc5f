-- Rows: one, the version of Postgres.
SHOW server_version
