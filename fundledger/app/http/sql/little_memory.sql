-- Makes the next statement of this transaction spill to a temporary file. Rows: none. Locks: none.
SET LOCAL work_mem = '64kB'
