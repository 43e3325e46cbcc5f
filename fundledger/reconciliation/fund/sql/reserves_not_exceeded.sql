-- Merchants whose releases of amounts exceed their holds without a release day: they took from holds that have one. A hold that an order
-- releases by name does not count. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT x.merchant, x.held::text AS held, x.released::text AS released, count(*) OVER () AS total FROM (
    SELECT o.merchant, coalesce(sum(o.amount) FILTER (WHERE o.kind = 'reserve_hold' AND o.state = 'posted' AND o.reversed_by IS NULL), 0) AS held,
           coalesce(sum(o.amount) FILTER (WHERE o.kind = 'reserve_release' AND o.state <> 'refused'), 0) AS released
    FROM fund.orders o
    WHERE o.kind IN ('reserve_hold', 'reserve_release') AND o.settle_on IS NULL AND o.of_order IS NULL
    GROUP BY o.merchant
) x (merchant, held, released)
WHERE x.released > x.held
ORDER BY x.merchant LIMIT 100
