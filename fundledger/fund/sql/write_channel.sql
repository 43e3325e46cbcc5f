-- Insert a channel, unless it exists. $1 name, $2 currency, $3 bank account, $4 payout method, $5 whether references are
-- unique, $6 overdraft or null, $7 state, $8 by which identity, $9 time, $10 refund method, $11 key version of
-- the MAC, $12 MAC. Rows: its name, or none if the channel exists. Locks: the new row.
INSERT INTO fund.channels (name, currency, bank_account, payout, references_unique, overdraft, state, registered_by, created_at, refund, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (name, currency) DO NOTHING
RETURNING name
