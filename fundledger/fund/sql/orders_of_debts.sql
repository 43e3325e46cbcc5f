-- Orders that change the debts of merchants. An order that is refused or not approved changes none. A transfer changes the
-- debt of its merchant, and that of its counterparty. $1 merchants, null for all merchants of orders. Rows: one per order,
-- by merchant. Locks: none.
SELECT {order}
FROM fund.orders o
WHERE (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off'))
  AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND ($1::text[] IS NULL OR o.merchant = ANY ($1::text[]))
UNION ALL
SELECT {order}
FROM fund.orders o
WHERE o.counter_set_off > 0 AND o.state <> 'refused' AND o.counterparty = ANY ($1::text[])
  AND NOT (o.merchant = ANY ($1::text[]) AND o.set_off > 0)
ORDER BY merchant
