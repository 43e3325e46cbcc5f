-- Find a database. $1 name. Rows: one if it exists. Locks: none.
SELECT d.datname FROM pg_database d WHERE d.datname = $1
