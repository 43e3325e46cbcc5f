-- The reserves of merchants. $1 merchants. `by_amount`: posted holds without a release day that no order releases by name, less the
-- releases of an amount that are not refused. Rows: one per merchant. Locks: none.
SELECT m.id AS merchant,
       (SELECT coalesce(sum(CASE WHEN o.kind = 'reserve_hold' THEN o.amount ELSE -o.amount END), 0) FROM fund.orders o
        WHERE o.merchant = m.id AND o.kind IN ('reserve_hold', 'reserve_release') AND o.settle_on IS NULL AND o.of_order IS NULL
          AND (o.state = 'posted' OR (o.kind = 'reserve_release' AND o.state <> 'refused'))
          AND o.reversed_by IS NULL) AS by_amount
FROM unnest($1::text[]) AS m (id)
