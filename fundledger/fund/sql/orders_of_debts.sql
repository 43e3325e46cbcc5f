-- Orders that change the debts of merchants. An order that is refused or not approved changes none. A transfer also changes
-- the debt of its counterparty. A split order changes the debts of the merchants of its parts. $1 merchants, null for all.
-- Rows: one per order, by merchant. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off'))
  AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND ($1::text[] IS NULL OR o.merchant = ANY ($1::text[]))
  AND o.parts IS NULL
UNION ALL
SELECT {order}
FROM fund.orders o
WHERE o.counter_set_off > 0 AND o.state <> 'refused' AND o.counterparty = ANY ($1::text[])
  AND NOT (o.merchant = ANY ($1::text[]) AND o.set_off > 0)
UNION ALL
SELECT {order}
FROM fund.orders o
WHERE o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND o.id = ANY (ARRAY(
    SELECT p.order_id FROM fund.split_parts p
    WHERE (p.to_receivable > 0 OR p.set_off > 0 OR p.end_set_off > 0) AND ($1::text[] IS NULL OR p.merchant = ANY ($1::text[]))))
ORDER BY merchant
