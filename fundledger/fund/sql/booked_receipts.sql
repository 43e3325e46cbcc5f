-- Orders that have receipts. A receipt is a channel, its reference, and the direction of the money. $1 channels, $2
-- references, $3 directions (`in`, `out` or `invoice`), in parallel. Rows: the receipt and its order, one per receipt that
-- an order has. Locks: none.
SELECT r.channel, r.ref AS channel_ref, r.direction, o.id, o.kind, o.merchant, o.order_no
FROM unnest($1::text[], $2::text[], $3::text[]) AS r (channel, ref, direction)
JOIN fund.orders o ON o.channel = r.channel AND o.channel_ref = r.ref
    AND fund.receipt(o.kind, o.state, o.receipt_void) = r.direction
UNION ALL
SELECT r.channel, r.ref, r.direction, o.id, o.kind, o.merchant, o.order_no
FROM unnest($1::text[], $2::text[], $3::text[]) AS r (channel, ref, direction)
JOIN fund.orders o ON o.counterparty = r.channel AND o.counter_ref = r.ref AND r.direction = 'out'
    AND NOT o.receipt_void AND o.state NOT IN ('refused', 'rejected', 'expired')
