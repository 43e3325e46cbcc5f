-- Draw the version of a new fee rule. The version is drawn before the insert, because the MAC of the rule covers it.
-- Rows: one. Locks: none.
SELECT nextval(pg_get_serial_sequence('fund.fee_rules', 'version'))
