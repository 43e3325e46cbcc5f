-- Orders of the fund database that a service has still to take a step of, whatever their callers were answered. Rows: one.
-- Locks: none.
SELECT count(*) FROM fund.orders o
WHERE o.state = 'posting' OR (o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown'))
