-- Record that the debt of a merchant has to be computed from the orders before it is used. $1 merchant. Rows: none. Locks:
-- the row.
UPDATE fund.debts d SET mac_key = 0, mac = '' WHERE d.merchant = $1
