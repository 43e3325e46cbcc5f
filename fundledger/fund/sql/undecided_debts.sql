-- Merchants with an order that may still change their debts: its outcome is not known, or it is parked, or its end is not
-- posted. A split order may change those of the merchants of its parts. $1 merchants, $2 orders to leave out. Rows: one per such
-- merchant. Locks: none.
WITH open AS MATERIALIZED (
    -- The condition is that of the index orders_split_open.
    SELECT o.id, o.state, o.stuck_from FROM fund.orders o
    WHERE o.parts IS NOT NULL
      AND (o.state IN ('posting', 'parked', 'sent', 'unknown', 'stuck') OR (o.state = 'posted' AND o.ending IS NOT NULL))
)
SELECT o.merchant FROM fund.orders o
WHERE o.merchant = ANY ($1::text[]) AND o.id <> ALL ($2::uuid[])
  AND (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('chargeback', 'recovery', 'write_off', 'dispute', 'dispute_fee'))
  AND o.parts IS NULL
  AND (o.state IN ('posting', 'parked') OR (o.state = 'stuck' AND o.stuck_from = 'posting')
       OR (o.end_set_off > 0 AND o.state IN ('posted', 'sent', 'unknown', 'stuck')))
UNION
SELECT o.counterparty FROM fund.orders o
WHERE o.counterparty = ANY ($1::text[]) AND o.counter_set_off > 0
  AND (o.state = 'posting' OR (o.state = 'stuck' AND o.stuck_from = 'posting'))
UNION
SELECT p.merchant FROM open o JOIN fund.split_parts p ON p.order_id = o.id
WHERE p.merchant = ANY ($1::text[]) AND (p.to_receivable > 0 OR p.set_off > 0 OR p.end_set_off > 0 OR p.kind = 'split_chargeback')
  AND (o.state IN ('posting', 'parked') OR (o.state = 'stuck' AND o.stuck_from = 'posting')
       OR (p.end_set_off > 0 AND o.state IN ('posted', 'sent', 'unknown', 'stuck')))
