-- Read the numbers of accounts whose MAC has layout 1. The query is used if a row of the page cannot be decoded.
-- $1 account number after which to read, $2 maximum number of rows. Rows: ordered by account number. Locks: none.
SELECT a.number FROM ledger.accounts a WHERE a.layout = 1 AND a.number > $1 ORDER BY a.number LIMIT $2
