-- Sums of the platform's own money in a currency. `put_in` and `taken_out`: own funds that came in, and that left. `swept`:
-- fee sweeps. An order that leaves counts from its approval until it is refused or its reversal is posted. One that comes
-- in counts when it is posted and no reversal is reserved for it. $1 currency. Rows: one. Locks: none.
SELECT coalesce(sum(o.amount) FILTER (WHERE o.kind = 'own_funds' AND o.direction = 'in'
                                      AND o.state = 'posted' AND o.reversed_by IS NULL), 0) AS put_in,
       coalesce(sum(o.amount) FILTER (WHERE o.kind = 'own_funds' AND o.direction = 'out'), 0) AS taken_out,
       coalesce(sum(o.amount) FILTER (WHERE o.kind = 'fee_sweep'), 0) AS swept
FROM fund.orders o
WHERE o.kind IN ('own_funds', 'fee_sweep') AND o.kind <> 'payment' AND o.currency = $1
  AND o.state NOT IN ('created', 'refused', 'rejected', 'expired')
  AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.state = 'posted')
