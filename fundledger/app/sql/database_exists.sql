-- $1 name. Rows: one when that database exists. Locks: none.
SELECT d.datname FROM pg_database d WHERE d.datname = $1
