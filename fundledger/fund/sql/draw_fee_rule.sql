-- Draw the version of a new fee rule, which its MAC covers. Rows: one. Locks: none.
SELECT nextval(pg_get_serial_sequence('fund.fee_rules', 'version'))
