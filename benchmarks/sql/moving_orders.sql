-- Number of orders of the fund database with a pending next step, whatever response their callers received. Rows: one.
-- Locks: none.
SELECT count(*) FROM fund.orders o
WHERE o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown'))
