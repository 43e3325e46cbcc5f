-- Limit memory, so that the next statement of this transaction writes a temporary file. Rows: none. Locks: none.
SET LOCAL work_mem = '64kB'
