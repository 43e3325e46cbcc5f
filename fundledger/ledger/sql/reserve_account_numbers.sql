-- Reserve numbers for new accounts, before their rows are built: the MAC of an account covers its number.
-- $1 how many. Rows: one per number. Locks: none.
SELECT nextval(pg_get_serial_sequence('ledger.accounts', 'number')) AS number FROM generate_series(1, $1::integer)
