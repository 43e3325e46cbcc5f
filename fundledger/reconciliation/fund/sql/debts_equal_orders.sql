-- Merchants whose row in fund.debts differs from the orders that made them owe and the orders that repay. An end that is
-- recorded repays, whether it is posted or not. Rows: the first 100; `total` is the number of all. Locks: none.
WITH owed AS (
    SELECT o.merchant,
           sum(CASE WHEN o.kind IN ('chargeback', 'reversal', 'dispute', 'dispute_fee')
                     AND (o.state IN ('posted', 'won', 'lost') OR (o.state = 'stuck' AND o.stuck_from <> 'posting'))
                    THEN o.to_receivable ELSE 0 END
               - CASE WHEN o.kind IN ('recovery', 'write_off') THEN o.amount ELSE o.set_off END
               - o.end_set_off) AS amount
    FROM fund.orders o
    WHERE o.state NOT IN ('refused', 'created', 'rejected', 'expired')
      AND (o.to_receivable > 0 OR o.set_off > 0 OR o.end_set_off > 0 OR o.kind IN ('recovery', 'write_off'))
    GROUP BY o.merchant
), received AS (
    SELECT o.counterparty AS merchant, sum(o.counter_set_off) AS amount
    FROM fund.orders o WHERE o.counter_set_off > 0 AND o.state <> 'refused' GROUP BY o.counterparty
), due AS (
    SELECT merchant, coalesce(o.amount, 0) - coalesce(r.amount, 0) AS amount FROM owed o FULL JOIN received r USING (merchant)
)
SELECT merchant, coalesce(o.amount, 0)::text AS expected, coalesce(d.owed, 0)::text AS actual, count(*) OVER () AS total
FROM due o FULL JOIN fund.debts d USING (merchant)
WHERE coalesce(o.amount, 0) <> coalesce(d.owed, 0)
ORDER BY merchant LIMIT 100
