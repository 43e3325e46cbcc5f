-- Minimal durable payment: one row. $1 id, $2 account, $3 amount. Rows: none. Locks: none that another transaction waits for.
INSERT INTO bare_vouchers (id, account, amount) VALUES ($1, $2, $3)
