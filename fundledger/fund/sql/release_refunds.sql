-- What refused refunds and chargebacks would have taken back is the payments' again. $1 ids of these orders. Rows: none.
-- Locks: their payments.
UPDATE fund.payments p
SET refunded = p.refunded - r.refunded, refunded_unsettled = p.refunded_unsettled - r.from_pending,
    fee_waived = p.fee_waived - r.fee_waived, fee_returned = p.fee_returned - r.fee, charged_back = p.charged_back - r.charged_back
FROM (SELECT o.of_order, sum(o.amount) FILTER (WHERE o.kind = 'refund') AS refunded, sum(o.from_pending)::bigint AS from_pending,
             sum(o.fee_waived)::bigint AS fee_waived, sum(o.fee)::bigint AS fee,
             sum(o.amount) FILTER (WHERE o.kind = 'chargeback') AS charged_back
      FROM fund.orders o WHERE o.id = ANY ($1::uuid[]) AND o.kind IN ('refund', 'chargeback') GROUP BY o.of_order) x
CROSS JOIN LATERAL (SELECT x.of_order, coalesce(x.refunded, 0)::bigint AS refunded, x.from_pending, x.fee_waived, x.fee,
                           coalesce(x.charged_back, 0)::bigint AS charged_back) r
WHERE p.order_id = r.of_order
