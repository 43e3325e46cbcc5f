-- The sum of the withdrawals and refunds that are sent, or reported as paid, and whose end is not posted. $1 channel, $2
-- currency. Rows: one. Locks: none.
SELECT coalesce(sum(u.amount), 0) AS amount FROM (
    SELECT o.amount FROM fund.orders o
    WHERE o.state IN ('sent', 'unknown') AND o.ending IS DISTINCT FROM 'bounced' AND o.channel = $1 AND o.currency = $2
    UNION ALL
    SELECT o.amount FROM fund.orders o
    WHERE o.kind = 'withdrawal' AND o.state = 'stuck' AND o.ending IS DISTINCT FROM 'bounced' AND (o.stuck_from IN ('sent', 'unknown') OR o.ending = 'paid')
      AND o.channel = $1 AND o.currency = $2
    UNION ALL
    SELECT o.amount FROM fund.orders o
    WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.ending = 'paid' AND o.channel = $1 AND o.currency = $2
    UNION ALL
    SELECT o.amount FROM fund.orders o
    WHERE o.kind IN ('refund', 'split_refund') AND o.state = 'posted' AND o.voucher_format = 3 AND o.ending = 'paid' AND o.channel = $1 AND o.currency = $2
    UNION ALL
    SELECT o.amount FROM fund.orders o
    WHERE o.kind IN ('refund', 'split_refund') AND o.state = 'stuck' AND o.voucher_format = 3 AND o.ending IS DISTINCT FROM 'bounced'
      AND (o.stuck_from IN ('sent', 'unknown') OR o.ending = 'paid') AND o.channel = $1 AND o.currency = $2
) AS u
