-- Merchants with an order that may still change their debts: its outcome is not known, or it is parked, or its end is not
-- posted. A split order may change those of the merchants of its parts. $1 merchants. Rows: one per such merchant. Locks: none.
SELECT DISTINCT o.merchant FROM fund.orders o
WHERE o.merchant = ANY ($1::text[])
  AND (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off'))
  AND o.parts IS NULL
  AND (o.state IN ('posting', 'parked') OR (o.state = 'stuck' AND o.stuck_from = 'posting')
       OR (o.end_set_off > 0 AND o.state IN ('posted', 'sent', 'unknown', 'stuck')))
UNION
SELECT p.merchant FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id
WHERE p.merchant = ANY ($1::text[]) AND (p.to_receivable > 0 OR p.set_off > 0 OR p.kind = 'split_chargeback')
  AND (o.state IN ('posting', 'parked') OR (o.state = 'stuck' AND o.stuck_from = 'posting'))
