-- The orders with which lines of a statement may be matched, by the channel's references or by order id. $1 channel, $2
-- currency, $3 references, $4 order ids. `taken`: a line of another statement matched the order. A payout return is also
-- found by its withdrawal (`payout`, `payout_ref`), because a bank may name the payout that returned. Rows: the orders that
-- move money of the channel, or may move it, oldest first. Locks: none.
WITH named AS (
    SELECT o.id FROM fund.orders o
    WHERE o.channel = $1::text AND o.channel_ref = ANY($3::text[])
        AND o.kind IN ('payment', 'withdrawal', 'payout_return', 'chargeback', 'refund')
    UNION
    SELECT o.id FROM fund.orders o
    WHERE o.id = ANY($4::uuid[]) AND o.kind IN ('withdrawal', 'payout_return', 'refund', 'channel_cost', 'chargeback')
), found AS (
    SELECT m.id FROM named m
    UNION
    SELECT b.id FROM named m JOIN fund.orders b ON b.of_order = m.id AND b.kind = 'payout_return'
)
SELECT n.id, n.kind, n.amount, n.channel_ref, n.kind <> 'payment' AS by_id, w.id AS payout, w.channel_ref AS payout_ref,
    n.state = CASE WHEN n.kind = 'withdrawal' OR (n.kind = 'refund' AND n.voucher_format = 3) THEN 'paid' ELSE 'posted' END AS ended,
    EXISTS (
        SELECT FROM fund.bank_statement_lines l
        WHERE l.order_id = n.id AND l.outcome IN ('matched', 'awaited', 'different')
    ) AS taken
FROM found f JOIN fund.orders n ON n.id = f.id
LEFT JOIN fund.orders w ON w.id = n.of_order AND n.kind = 'payout_return'
WHERE n.channel = $1::text AND n.currency = $2::text AND n.state NOT IN ('created', 'refused', 'bounced')
    AND n.reversed_by IS NULL
ORDER BY n.seq
