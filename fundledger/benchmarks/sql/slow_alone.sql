-- Also when nobody else is in a transaction. Rows: none. Locks: none.
ALTER SYSTEM SET commit_siblings = 0
