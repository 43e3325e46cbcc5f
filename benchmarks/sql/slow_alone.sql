-- Delay commits also without other open transactions. Rows: none. Locks: none.
ALTER SYSTEM SET commit_siblings = 0
