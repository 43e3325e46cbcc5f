-- Merchants of the fee rules that are newer than a version. $1 the version. Rows: one per rule. Locks: none.
SELECT f.version, f.merchant FROM fund.fee_rules f WHERE f.version > $1 ORDER BY f.version
