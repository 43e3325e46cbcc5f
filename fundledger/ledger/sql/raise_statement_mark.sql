-- Have statements be complete up to a time, but for batches that are being written now.
-- $1 time (us). Rows: one. Locks: an advisory lock, until this is committed.
SELECT ledger.raise_statement_mark($1)
