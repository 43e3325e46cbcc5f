-- Read the id of the fund database. Rows: one. Locks: none.
SELECT i.fund_id FROM fund.identity i
