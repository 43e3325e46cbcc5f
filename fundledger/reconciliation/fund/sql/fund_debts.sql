-- Every row of fund.debts, with its MAC. Rows: all. Locks: none.
SELECT d.merchant, d.owed, d.mac_key, d.mac
FROM fund.debts d
