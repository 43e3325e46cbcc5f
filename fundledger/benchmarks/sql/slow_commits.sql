-- Have each commit take so much longer, whoever else commits; the number is put in. Rows: none. Locks: none.
ALTER SYSTEM SET commit_delay = MICROSECONDS
