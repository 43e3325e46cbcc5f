-- Raise the statement mark. A later batch gets a time after the mark; a batch that is being written now may have an earlier one.
-- $1 time (us). Rows: one. Locks: an advisory lock, until the commit.
SELECT ledger.raise_statement_mark($1)
