-- What a statement of this transaction keeps goes to a temporary file soon. Rows: none. Locks: none.
SET LOCAL work_mem = '64kB'
