-- Limit the working memory of this transaction, so that its next statement writes a temporary file. Rows: none. Locks: none.
SET LOCAL work_mem = '64kB'
