-- A page of accounts in the order of their ids, with whether each is of the type and currency that are asked for.
-- $1 id after which the page begins, $2 how many accounts are looked at, $3 type or NULL, $4 currency or NULL.
-- Rows: at most $2. Locks: none.
SELECT a.id, ($3::text IS NULL OR a.type = $3) AND ($4::text IS NULL OR a.currency = $4) AS matches
FROM ledger.accounts a WHERE a.id > $1 ORDER BY a.id LIMIT $2
