-- Lock the debts of merchants. $1 merchants. Rows: the rows that exist. Locks: these rows.
SELECT d.merchant, d.owed, d.mac_key, d.mac FROM fund.debts d WHERE d.merchant = ANY ($1::text[])
ORDER BY d.merchant -- one lock order prevents deadlocks
FOR UPDATE
