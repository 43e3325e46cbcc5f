-- Delay each commit. The delay is inserted into the text. Rows: none. Locks: none.
ALTER SYSTEM SET commit_delay = MICROSECONDS
