-- Versions and merchants of fee rules, from after a version. $1 this version. Rows: one per rule. Locks: none.
SELECT f.version, f.merchant FROM fund.fee_rules f WHERE f.version > $1 ORDER BY f.version
