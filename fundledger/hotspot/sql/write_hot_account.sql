-- Store the heat of an account.
-- $1 account number, $2 state, $3 since (seconds since 1970), $4 utilisation. Rows: the id of the account. Locks: the row.
INSERT INTO ledger.hot_accounts (account_number, state, since, utilisation)
VALUES ($1, $2, to_timestamp($3::float8), $4::float8)
ON CONFLICT (account_number) DO UPDATE
SET state = EXCLUDED.state, since = EXCLUDED.since, utilisation = EXCLUDED.utilisation
RETURNING (SELECT a.id FROM ledger.accounts a WHERE a.number = account_number) AS id
