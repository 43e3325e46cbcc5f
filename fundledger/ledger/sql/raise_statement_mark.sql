-- Raise the statement mark. Each later batch gets a time after the mark. A batch that is being written now may have an earlier time.
-- $1 time (us). Rows: one. Locks: an advisory lock, until the commit.
SELECT ledger.raise_statement_mark($1)
