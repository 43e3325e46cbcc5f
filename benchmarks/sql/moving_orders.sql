-- Count the orders of the fund database that are `posting`, and the withdrawals whose recorded end is not posted yet.
-- Rows: one. Locks: none.
SELECT count(*) FROM fund.orders o
WHERE o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown'))
