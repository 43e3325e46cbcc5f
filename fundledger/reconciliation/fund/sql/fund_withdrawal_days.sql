-- Every row of fund.withdrawal_days, with its MAC. Rows: all. Locks: none.
SELECT d.merchant, d.day, d.amount, d.mac_key, d.mac
FROM fund.withdrawal_days d
