-- Minimal durable payment: one row. $1 id, $2 account, $3 amount. Rows: none. Locks: none that wait.
INSERT INTO bare_vouchers (id, account, amount) VALUES ($1, $2, $3)
