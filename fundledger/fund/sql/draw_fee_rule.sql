-- Draw the version of a new fee rule. The MAC of the rule covers the version. Rows: one. Locks: none.
SELECT nextval(pg_get_serial_sequence('fund.fee_rules', 'version'))
