-- Merchants whose row in fund.debts differs from the orders that made them owe and the orders that repay. An end that is
-- recorded repays, whether it is posted or not. Rows: the first 100; `total` is the number of all. Locks: none.
WITH changes AS (
    SELECT o.merchant,
           CASE WHEN o.kind IN ('chargeback', 'reversal', 'dispute', 'dispute_fee')
                 AND (o.state IN ('posted', 'won', 'lost') OR (o.state = 'stuck' AND o.stuck_from <> 'posting'))
                THEN o.to_receivable ELSE 0 END
               - CASE WHEN o.kind IN ('recovery', 'write_off') THEN o.amount ELSE o.set_off END
               - o.end_set_off AS amount
    FROM fund.orders o
    WHERE o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND o.parts IS NULL
      AND (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('recovery', 'write_off'))
    UNION ALL
    SELECT o.counterparty, -o.counter_set_off FROM fund.orders o WHERE o.counter_set_off > 0 AND o.state <> 'refused'
    UNION ALL
    SELECT p.merchant,
           CASE WHEN o.kind IN ('split_chargeback', 'reversal') AND o.state = 'posted' THEN p.to_receivable ELSE 0 END::numeric
               - p.set_off - p.end_set_off
    FROM fund.split_parts p JOIN fund.orders o ON o.id = p.order_id
    WHERE o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND (p.to_receivable > 0 OR p.set_off > 0 OR p.end_set_off > 0)
), owed AS (
    SELECT n.merchant, sum(n.amount) AS amount FROM changes n GROUP BY n.merchant
)
SELECT merchant, coalesce(o.amount, 0)::text AS expected, coalesce(d.owed, 0)::text AS actual, count(*) OVER () AS total
FROM owed o FULL JOIN fund.debts d USING (merchant)
WHERE coalesce(o.amount, 0) <> coalesce(d.owed, 0)
ORDER BY merchant LIMIT 100
