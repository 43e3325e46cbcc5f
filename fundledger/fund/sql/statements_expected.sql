-- The orders with which lines of a statement may be matched, by the channel's references or by order id. $1 channel, $2
-- currency, $3 references, $4 order ids. `taken`: a line of another statement matched the order. Rows: the orders that
-- move money of the channel, or may move it, oldest first. Locks: none.
WITH named AS (
    SELECT o.id, o.seq, o.kind, o.amount, o.channel_ref, o.state, o.currency, o.channel, o.reversed_by
    FROM fund.orders o
    WHERE o.channel = $1::text AND o.channel_ref = ANY($3::text[])
        AND o.kind IN ('payment', 'withdrawal', 'chargeback', 'refund', 'split_payment', 'split_refund', 'split_chargeback',
                       'channel_invoice_payment')
    UNION
    SELECT o.id, o.seq, o.kind, o.amount, o.channel_ref, o.state, o.currency, o.channel, o.reversed_by
    FROM fund.orders o
    WHERE o.id = ANY($4::uuid[])
        AND o.kind IN ('withdrawal', 'refund', 'channel_cost', 'chargeback', 'split_refund', 'split_chargeback', 'channel_invoice_payment')
)
SELECT n.id, n.kind, n.amount, n.channel_ref, n.kind NOT IN ('payment', 'split_payment') AS by_id,
    n.state = CASE n.kind WHEN 'withdrawal' THEN 'paid' ELSE 'posted' END AS ended,
    EXISTS (
        SELECT FROM fund.bank_statement_lines l
        WHERE l.order_id = n.id AND l.outcome IN ('matched', 'awaited', 'different')
    ) AS taken
FROM named n
WHERE n.channel = $1::text AND n.currency = $2::text AND n.state NOT IN ('created', 'refused', 'bounced', 'rejected', 'expired')
    AND n.reversed_by IS NULL
ORDER BY n.seq
