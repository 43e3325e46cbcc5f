-- The facts that determine the first day of another calendar: the time of the database, the last day that is closed or
-- being closed, and whether there are orders. Rows: one. Locks: none.
SELECT clock_timestamp() AS now, greatest((SELECT max(e.day) FROM fund.day_ends e), (SELECT max(c.day) FROM fund.day_closings c)) AS closed,
       EXISTS (SELECT FROM fund.orders) AS has_orders
