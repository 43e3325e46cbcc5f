-- Raise the mark up to which statements are complete, except for batches that are being written now.
-- $1 time (us). Rows: one. Locks: an advisory lock, until the commit.
SELECT ledger.raise_statement_mark($1)
