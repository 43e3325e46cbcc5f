-- Which fund database it is. Rows: one. Locks: none.
SELECT i.fund_id FROM fund.identity i
