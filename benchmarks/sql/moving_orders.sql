-- Number of orders of the fund database whose voucher, or recorded end, is not known to be posted. Rows: one. Locks:
-- none.
SELECT count(*) FROM fund.orders o
WHERE o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown'))
