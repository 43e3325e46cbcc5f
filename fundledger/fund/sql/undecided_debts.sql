-- Merchants with an order that may still change their debts: its outcome is not known, or it is parked, or its end is not
-- posted. $1 merchants, $2 orders to leave out. Rows: one per such merchant. Locks: none.
SELECT DISTINCT o.merchant FROM fund.orders o
WHERE o.merchant = ANY ($1::text[]) AND o.id <> ALL ($2::uuid[])
  AND (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off'))
  AND (o.state IN ('posting', 'parked') OR (o.state = 'stuck' AND o.stuck_from = 'posting')
       OR (o.end_set_off > 0 AND o.state IN ('posted', 'sent', 'unknown', 'stuck')))
