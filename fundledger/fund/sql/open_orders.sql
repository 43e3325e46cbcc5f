-- The numbers of orders of a merchant that have a further step, and of split orders in which it has a part. `open`: they wait for
-- approval, have no known outcome, are stuck, or have not ended. `parked`: they are parked. $1 merchant, $2 all kinds of orders. Rows:
-- one. Locks: none.
WITH of_splits AS (
    SELECT o.kind, o.state FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id WHERE p.merchant = $1 AND o.merchant <> $1
)
SELECT (SELECT count(*) FROM fund.orders o
        WHERE o.merchant = $1 AND o.kind = ANY ($2::text[]) AND o.state IN ('created', 'sent', 'unknown', 'stuck')
          AND o.state NOT IN ('posted', 'posting'))
     + (SELECT count(*) FROM fund.orders o WHERE o.due_at IS NOT NULL AND o.state = 'posting' AND o.merchant = $1)
     + (SELECT count(*) FROM fund.orders o
        WHERE o.merchant = $1 AND o.kind IN ('withdrawal', 'refund', 'split_refund', 'dispute') AND o.state = 'posted'
          AND (o.kind <> 'refund' OR o.voucher_format >= 3))
     + (SELECT count(*) FROM of_splits s
        WHERE s.state IN ('posting', 'sent', 'unknown', 'stuck') OR (s.kind = 'split_refund' AND s.state = 'posted')) AS open,
       (SELECT count(*) FROM fund.orders o
        WHERE o.merchant = $1 AND o.kind = ANY ($2::text[]) AND o.state = 'parked' AND o.state NOT IN ('posted', 'posting'))
     + (SELECT count(*) FROM of_splits s WHERE s.state = 'parked') AS parked
