-- The numbers of orders of a merchant that have a further step. `open`: they wait for approval, have no known outcome, are stuck, or
-- are withdrawals that have not ended. `parked`: they are parked. $1 merchant, $2 all kinds of orders. Rows: one. Locks: none.
SELECT (SELECT count(*) FROM fund.orders o
        WHERE o.merchant = $1 AND o.kind = ANY ($2::text[]) AND o.state IN ('created', 'sent', 'unknown', 'stuck')
          AND o.state NOT IN ('posted', 'posting'))
     + (SELECT count(*) FROM fund.orders o WHERE o.due_at IS NOT NULL AND o.state = 'posting' AND o.merchant = $1)
     + (SELECT count(*) FROM fund.orders o WHERE o.merchant = $1 AND o.kind = 'withdrawal' AND o.state = 'posted') AS open,
       (SELECT count(*) FROM fund.orders o
        WHERE o.merchant = $1 AND o.kind = ANY ($2::text[]) AND o.state = 'parked' AND o.state NOT IN ('posted', 'posting')) AS parked
