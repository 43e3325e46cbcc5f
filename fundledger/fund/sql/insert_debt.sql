-- Insert the debt of a merchant that is older than fund.debts. $1 merchant, $2 debt, $3 key version of the MAC, $4 MAC.
-- Rows: none. Locks: the new row.
INSERT INTO fund.debts (merchant, owed, mac_key, mac) VALUES ($1, $2, $3, $4)
