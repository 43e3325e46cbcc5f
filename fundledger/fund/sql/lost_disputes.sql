-- The sum of the disputes that are reported as lost, and whose end is not posted: the bank has taken this money, and the books still
-- have it. $1 channel, $2 currency. Rows: one. Locks: none.
SELECT coalesce(sum(u.amount), 0) AS amount FROM (
    SELECT o.amount FROM fund.orders o
    WHERE o.kind = 'dispute' AND o.state = 'posted' AND o.ending = 'lost' AND o.channel = $1 AND o.currency = $2
    UNION ALL
    SELECT o.amount FROM fund.orders o
    WHERE o.kind = 'dispute' AND o.state = 'stuck' AND o.ending = 'lost' AND o.channel = $1 AND o.currency = $2
) AS u
