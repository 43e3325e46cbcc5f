-- Delay each commit. The caller inserts the delay in microseconds into the text. Rows: none. Locks: none.
ALTER SYSTEM SET commit_delay = MICROSECONDS
