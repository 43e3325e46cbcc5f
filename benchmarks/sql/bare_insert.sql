-- Insert one row: a minimal durable payment. $1 id, $2 account, $3 amount. Rows: none. Locks: none that block others.
INSERT INTO bare_vouchers (id, account, amount) VALUES ($1, $2, $3)
