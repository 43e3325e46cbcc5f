-- Merchants with an order that may still change their debts: its outcome is not known, or it is parked, or its end is not
-- posted. $1 merchants. Rows: one per such merchant. Locks: none.
SELECT o.merchant FROM fund.orders o
WHERE o.merchant = ANY ($1::text[])
  AND (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off', 'dispute', 'dispute_fee'))
  AND (o.state IN ('posting', 'parked') OR (o.state = 'stuck' AND o.stuck_from = 'posting')
       OR (o.end_set_off > 0 AND o.state IN ('posted', 'sent', 'unknown', 'stuck')))
UNION
SELECT o.counterparty FROM fund.orders o
WHERE o.counterparty = ANY ($1::text[]) AND o.counter_set_off > 0
  AND (o.state = 'posting' OR (o.state = 'stuck' AND o.stuck_from = 'posting'))
