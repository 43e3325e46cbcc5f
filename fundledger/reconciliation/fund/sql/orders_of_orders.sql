-- Orders that refer to a missing or unsuitable order, and orders that are marked as reversed, cleared or released by an
-- order that does not do this. Rows: the first 100; `total` is the number of all. Locks: none.
SELECT x.id, x.kind, x.found, count(*) OVER () AS total FROM (
    SELECT o.id, o.kind, CASE
        WHEN t.id IS NULL THEN 'none'
        ELSE format('%s %s of %s, %s, %s, %s', t.kind, t.id, t.merchant, t.currency, coalesce(t.channel, 'no channel'), t.state)
        END AS found
    FROM fund.orders o LEFT JOIN fund.orders t ON t.id = o.of_order
    WHERE (o.kind IN ('refund', 'chargeback', 'dispute', 'reversal', 'payout_return', 'split_refund', 'split_chargeback')
           OR (o.kind = 'payable_payment' AND o.of_order IS NOT NULL))
      AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND (
        t.id IS NULL OR t.merchant <> o.merchant OR t.currency <> o.currency
        OR t.state <> CASE o.kind WHEN 'payout_return' THEN 'paid' ELSE 'posted' END
        OR (o.kind <> 'reversal' AND (t.channel IS DISTINCT FROM o.channel OR t.kind <> CASE o.kind
                WHEN 'payout_return' THEN 'withdrawal' WHEN 'split_refund' THEN 'split_payment' WHEN 'split_chargeback' THEN 'split_payment'
                WHEN 'payable_payment' THEN 'channel_invoice' ELSE 'payment' END))
        OR (o.kind = 'reversal' AND (t.amount <> o.amount OR t.kind <> coalesce(o.of_kind, t.kind) OR t.reversed_by IS DISTINCT FROM o.id))
    )
    UNION ALL
    SELECT o.id, o.kind, coalesce(t.kind || format(' %s of %s, %s, %s', t.id, t.merchant, t.currency, t.state), 'none')
    FROM fund.orders o LEFT JOIN fund.orders t ON t.id = o.of_order
    WHERE o.kind = 'dispute_won' AND o.state <> 'refused' AND (
        t.id IS NULL OR t.merchant <> o.merchant OR t.currency <> o.currency OR t.kind IS DISTINCT FROM o.of_kind
        OR t.channel IS DISTINCT FROM o.channel
        OR t.state IN ('refused', 'cleared') OR (t.kind = 'dispute' AND t.state <> 'lost')
    )
    UNION ALL
    SELECT o.id, o.kind, coalesce(t.kind || format(' %s of %s, %s, %s', t.id, t.merchant, t.currency, t.state), 'none')
    FROM fund.orders o LEFT JOIN fund.orders t ON t.id = o.of_order
    WHERE o.kind = 'parked_clearing' AND o.state NOT IN ('refused', 'created', 'rejected', 'expired') AND (
        t.id IS NULL OR t.amount <> o.amount OR t.currency <> o.currency OR t.kind IS DISTINCT FROM o.of_kind
        OR (t.reversed_by IS DISTINCT FROM o.id AND NOT EXISTS (
            SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.kind = 'reversal' AND r.state = 'posted'))
        OR (t.reversed_by = o.id AND t.state <> CASE o.state WHEN 'posted' THEN 'cleared' ELSE 'parked' END)
        OR (t.reversed_by = o.id AND EXISTS (
            SELECT FROM fund.orders r WHERE r.id = o.reversed_by AND r.kind = 'reversal' AND r.state = 'posted'))
    )
    UNION ALL
    SELECT o.id, o.kind, coalesce(t.kind || format(' %s of %s, %s, %s', t.id, t.merchant, t.currency, t.state), 'none')
    FROM fund.orders o LEFT JOIN fund.orders t ON t.id = o.of_order
    WHERE o.kind = 'reserve_release' AND o.of_order IS NOT NULL AND o.state <> 'refused' AND (
        t.id IS NULL OR t.kind <> 'reserve_hold' OR t.merchant <> o.merchant OR t.currency <> o.currency OR t.amount <> o.amount
        OR t.state <> 'posted' OR t.reversed_by IS DISTINCT FROM o.id
    )
    UNION ALL
    SELECT t.id, t.kind, 'reversed by ' || coalesce(t.reversed_by::text, 'none')
    FROM fund.orders t LEFT JOIN fund.orders r
        ON r.id = t.reversed_by AND r.kind = CASE WHEN t.state IN ('parked', 'cleared') THEN 'parked_clearing'
                                             WHEN t.kind = 'reserve_hold' THEN 'reserve_release' ELSE 'reversal' END
       AND r.of_order = t.id AND r.state NOT IN ('refused', 'created', 'rejected', 'expired')
    WHERE (t.reversed_by IS NOT NULL OR t.state = 'cleared') AND r.id IS NULL
) AS x (id, kind, found) ORDER BY x.id, x.found LIMIT 100
