-- Insert a payee. $1 id, $2 merchant, $3 holder, $4 IBAN or null, $5 account number or null, $6 bank code or null, $7
-- currency, $8 state, $9 by which identity, $10 time, $11 end of the cooling time, $12 payee that it replaces or null, $13
-- key version of the MAC, $14 MAC. Rows: none. Locks: the new row.
INSERT INTO fund.payees (id, merchant, holder, iban, account, bank_code, currency, state, registered_by, created_at, usable_from,
                         replaces, mac_key, mac)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
