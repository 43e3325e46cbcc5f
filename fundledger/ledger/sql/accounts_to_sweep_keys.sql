-- The numbers of accounts whose MAC is of layout 1, where one of them cannot be read as a whole.
-- $1 number after which to read, $2 how many at most. Rows: in the order of their numbers. Locks: none.
SELECT a.number FROM ledger.accounts a WHERE a.layout = 1 AND a.number > $1 ORDER BY a.number LIMIT $2
