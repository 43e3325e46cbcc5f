-- Reserve holds that are due to be released. $1 the day, $2 release day, $3 merchant and $4 id of the hold to start after, $5 limit.
-- Rows: one per hold, with the number of the orders that were to release it, by release day, merchant and id. Locks: none.
SELECT o.id, o.merchant, o.order_no, o.settle_on, (SELECT count(*) FROM fund.orders r WHERE r.of_order = o.id) AS attempts
FROM fund.orders o
WHERE o.kind = 'reserve_hold' AND o.settle_on IS NOT NULL AND o.reversed_by IS NULL AND o.state = 'posted' AND o.settle_on <= $1::date
  AND (o.settle_on, o.merchant, o.id) > ($2::date, $3::text, $4::uuid)
ORDER BY o.settle_on, o.merchant, o.id LIMIT $5::bigint
