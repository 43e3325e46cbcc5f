-- Read a page of an owner's accounts ordered by id. `matches`: whether the account has the requested type and currency.
-- $1 id after which the page begins, $2 maximum number of accounts to read, $3 type or NULL, $4 currency or NULL, $5 owner.
-- Rows: at most $2. Locks: none.
SELECT a.id, ($3::text IS NULL OR a.type = $3) AND ($4::text IS NULL OR a.currency = $4) AS matches
FROM ledger.accounts a WHERE a.owner = $5 AND a.id > $1 ORDER BY a.owner, a.id LIMIT $2
