-- Orders that count in the platform's own money in a currency: own funds, and fee sweeps. An order that leaves counts from its
-- approval until it is refused or its reversal is posted. Own funds that come in count when they are posted and no reversal is
-- reserved for them. $1 currency. Rows: one per order. Locks: none. `kind <> 'payment'` is the condition of the partial index
-- that is read.
SELECT {order}
FROM fund.orders o
WHERE o.kind IN ('own_funds', 'fee_sweep') AND o.kind <> 'payment' AND o.currency = $1
  AND o.state NOT IN ('created', 'refused', 'rejected', 'expired')
  AND (o.direction IS DISTINCT FROM 'in' OR (o.state = 'posted' AND o.reversed_by IS NULL))
  AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.state = 'posted')
