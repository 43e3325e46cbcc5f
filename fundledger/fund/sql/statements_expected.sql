-- The orders with which lines of a statement may be matched, by the channel's references or by order id. $1 channel, $2
-- currency, $3 references, $4 order ids. `amount`: the movement at the bank, positive for money that came in. An own
-- transfer moves money at both of its channels, and twice at the channel that it left if it bounced. A payout return is also
-- found by its withdrawal (`payout`, `payout_ref`), because a bank may name the payout that returned. `taken`: a line of
-- another statement matched this movement. Rows: the movements of orders that move money of the channel, or may move it,
-- oldest first. Locks: none.
WITH named AS (
    SELECT o.id, o.seq, o.kind, o.channel_ref, o.state, o.reversed_by, o.of_order,
        CASE WHEN o.kind IN ('payment', 'payout_return', 'top_up', 'dispute_won', 'own_funds', 'own_transfer', 'split_payment') THEN o.amount ELSE -o.amount END AS amount,
        o.kind NOT IN ('payment', 'top_up', 'dispute_won', 'own_funds', 'split_payment') AS by_id,
        CASE WHEN o.kind IN ('withdrawal', 'own_transfer') OR (o.kind IN ('refund', 'split_refund') AND o.voucher_format = 3) THEN 'paid'
             WHEN o.kind = 'dispute' THEN 'lost' ELSE 'posted' END AS last
    FROM fund.orders o
    WHERE o.channel = $1::text AND o.currency = $2::text AND o.channel_ref = ANY($3::text[])
        AND o.kind IN ('payment', 'withdrawal', 'payout_return', 'chargeback', 'refund', 'own_transfer', 'own_funds', 'fee_sweep',
                       'payable_payment', 'top_up', 'dispute_won', 'dispute_fee', 'dispute', 'split_payment', 'split_refund',
                       'split_chargeback')
    UNION
    SELECT o.id, o.seq, o.kind, o.channel_ref, o.state, o.reversed_by, o.of_order,
        CASE WHEN o.kind IN ('own_transfer', 'payout_return') THEN o.amount ELSE -o.amount END, true,
        CASE WHEN o.kind IN ('withdrawal', 'own_transfer') OR (o.kind IN ('refund', 'split_refund') AND o.voucher_format = 3) THEN 'paid'
             WHEN o.kind = 'dispute' THEN 'lost' ELSE 'posted' END
    FROM fund.orders o
    WHERE o.id = ANY($4::uuid[]) AND o.channel = $1::text AND o.currency = $2::text
        AND (o.kind IN ('withdrawal', 'payout_return', 'refund', 'channel_cost', 'chargeback', 'own_transfer', 'fee_sweep', 'payable_payment',
                        'dispute', 'split_refund', 'split_chargeback')
             OR (o.kind = 'dispute_fee' AND o.against IS NULL)
             OR (o.kind IN ('suspense_clearing', 'parked_clearing') AND o.against = 'bank'))
    UNION
    SELECT o.id, o.seq, o.kind, o.counter_ref, o.state, o.reversed_by, o.of_order, -o.amount, true,
        CASE WHEN o.state IN ('posted', 'paid', 'bounced') THEN o.state END
    FROM fund.orders o
    WHERE o.counterparty = $1::text AND o.currency = $2::text AND o.counter_ref = ANY($3::text[])
        AND o.kind IN ('own_transfer', 'own_funds')
    UNION
    SELECT o.id, o.seq, o.kind, o.counter_ref, o.state, o.reversed_by, o.of_order, -o.amount, true,
        CASE WHEN o.state IN ('posted', 'paid', 'bounced') THEN o.state END
    FROM fund.orders o
    WHERE o.id = ANY($4::uuid[]) AND o.counterparty = $1::text AND o.currency = $2::text AND o.kind IN ('own_transfer', 'own_funds')
    UNION
    SELECT o.id, o.seq, o.kind, NULL, o.state, o.reversed_by, o.of_order, o.amount, true, 'bounced'
    FROM fund.orders o
    WHERE o.id = ANY($4::uuid[]) AND o.counterparty = $1::text AND o.currency = $2::text AND o.kind = 'own_transfer'
        AND o.ending = 'bounced'
), found AS (
    SELECT m.id, m.seq, m.kind, m.channel_ref, m.state, m.reversed_by, m.of_order, m.amount, m.by_id, m.last FROM named m
    UNION
    SELECT b.id, b.seq, b.kind, b.channel_ref, b.state, b.reversed_by, b.of_order, b.amount, true, 'posted'
    FROM named m JOIN fund.orders b ON b.of_order = m.id AND b.kind = 'payout_return'
)
SELECT n.id, n.kind, n.amount, n.channel_ref, n.by_id, w.id AS payout, w.channel_ref AS payout_ref,
    coalesce(n.state = 'cleared' OR n.state = n.last, false) AS ended,
    EXISTS (
        SELECT FROM fund.bank_statement_lines l
        WHERE l.order_id = n.id AND l.channel = $1::text AND l.outcome IN ('matched', 'awaited', 'different')
            AND (l.amount > 0) = (n.amount > 0)
    ) AS taken
FROM found n
LEFT JOIN fund.orders w ON w.id = n.of_order AND n.kind = 'payout_return'
WHERE n.state NOT IN ('created', 'refused', 'rejected', 'expired', 'won') AND (n.state <> 'bounced' OR n.last = 'bounced')
    AND (n.reversed_by IS NULL OR n.state IN ('parked', 'cleared'))
ORDER BY n.seq
