-- Record that an order is parked: the voucher that parks it is posted, or the voucher of its release is refused. $1 order
-- id, $2 attempt, $3 the voucher that parks the order, $4 the reason (JSON) or null, $5 seconds until the accounts of its
-- merchant are read, $6 new MAC, $7 key version of the new MAC, $8 the MAC as read, $9 parts (JSON) of a
-- split order or null. Rows: one, or none if the outcome is already recorded, or if the order has changed since it was read.
-- Locks: the order.
WITH marked AS (
    UPDATE fund.orders o SET state = 'parked', parked_voucher_id = $3, set_off = 0, to_receivable = 0, mac = $6, mac_key = $7, parts = $9::json,
           due_at = clock_timestamp() + make_interval(secs => $5)
    WHERE o.id = $1 AND o.kind IN ('payment', 'chargeback', 'payout_return', 'top_up', 'dispute_won', 'dispute_fee', 'split_payment',
                                   'split_chargeback')
      AND o.state = 'posting' AND o.attempt = $2 AND o.mac IS NOT DISTINCT FROM $8
    RETURNING o.id, o.merchant, o.kind, o.state
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, $4::json, clock_timestamp() FROM marked m
)
SELECT m.id FROM marked m
