-- All vouchers that orders have or may have, ordered by voucher id: the voucher that posts an order, the voucher that
-- parked it, and the voucher that posts its recorded end. The former id of an end is derived as in
-- fund/model/order.py: a UUID of version 8 (RFC 9562), from a SHA-256. Rows: one per voucher. Locks: none.
SELECT o.voucher_id AS step_voucher, false AS is_end, false AS parks, o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee,
       o.currency, o.digest, o.voucher_id, o.module, o.created_at, o.channel, o.settle, o.of_order, o.from_pending,
       o.to_receivable, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.against, o.counterparty, o.counter_set_off, o.of_kind, o.tax, o.parts,
       o.direction, o.attempt, o.ending, o.stuck_from, o.end_voucher_id, o.voucher_format,
       CASE WHEN o.kind = 'reversal' THEN (SELECT r.voucher_id FROM fund.orders r WHERE r.id = o.of_order) END AS of_voucher
FROM fund.orders o WHERE o.voucher_id IS DISTINCT FROM o.parked_voucher_id
UNION ALL
SELECT o.parked_voucher_id, false, true, o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee,
       o.currency, o.digest, o.voucher_id, o.module, o.created_at, o.channel, o.settle, o.of_order, o.from_pending,
       o.to_receivable, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.against, o.counterparty, o.counter_set_off, o.of_kind, o.tax, o.parts,
       o.direction, o.attempt, o.ending, o.stuck_from, o.end_voucher_id, o.voucher_format,
       NULL
FROM fund.orders o WHERE o.parked_voucher_id IS NOT NULL
UNION ALL
SELECT coalesce(o.end_voucher_id, encode(set_byte(set_byte(h.hash, 6, get_byte(h.hash, 6) & 15 | 128), 8, get_byte(h.hash, 8) & 63 | 128), 'hex')::uuid),
       true, false, o.id, o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee,
       o.currency, o.digest, o.voucher_id, o.module, o.created_at, o.channel, o.settle, o.of_order, o.from_pending,
       o.to_receivable, o.set_off, o.end_set_off, o.parking, o.parked_voucher_id, o.against, o.counterparty, o.counter_set_off, o.of_kind, o.tax, o.parts,
       o.direction, o.attempt, o.ending, o.stuck_from, o.end_voucher_id, o.voucher_format,
       NULL
FROM fund.orders o CROSS JOIN LATERAL (
    SELECT substr(sha256(convert_to('7:voucher32:' || replace(o.id::text, '-', '') || '3:end' || length(o.attempt::text) || ':' || o.attempt, 'UTF8')), 1, 16) AS hash
) AS h
WHERE o.kind IN ('withdrawal', 'refund', 'split_refund', 'own_transfer', 'dispute') AND o.ending IS NOT NULL
ORDER BY step_voucher
