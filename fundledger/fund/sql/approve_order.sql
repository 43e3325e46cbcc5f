-- Approve an order under dual control, which becomes `posting`. $1 order id, $2 approver (IDENTITY or IDENTITY/NOTE), $3
-- seconds until the recoverer takes the order, $4 new MAC, $5 key version of the new MAC, $6 the MAC as read, $7 set-off.
-- The identities of requester and approver have to differ. Rows: the order, or none if it does not wait for approval, if
-- $2 may not approve it, or if it has changed since it was read. Locks: the order.
WITH approved AS (
    UPDATE fund.orders o SET state = 'posting', approved_by = $2, mac = $4, mac_key = $5, set_off = $7,
         due_at = clock_timestamp() + make_interval(secs => $3), step_asked_at = clock_timestamp()
    WHERE o.id = $1 AND o.kind IN ('adjustment', 'write_off', 'bank_difference', 'reversal', 'own_transfer', 'own_funds', 'fee_sweep',
                     'payable_payment', 'suspense_clearing', 'parked_clearing') AND o.state = 'created'
      AND o.mac IS NOT DISTINCT FROM $6 AND split_part(o.module, '/', 1) <> split_part($2, '/', 1)
    RETURNING {order}
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT a.id, a.merchant, a.kind, a.state, json_build_object('approved_by', a.approved_by), clock_timestamp() FROM approved a
)
SELECT {order} FROM approved o
