-- Reserve numbers for new accounts. Run this query before the MACs are computed, because the MAC of an account covers its number.
-- $1 how many numbers. Rows: one per number. Locks: none.
SELECT nextval(pg_get_serial_sequence('ledger.accounts', 'number')) AS number FROM generate_series(1, $1::integer)
