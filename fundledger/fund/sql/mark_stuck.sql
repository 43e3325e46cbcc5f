-- Mark an order as stuck, because no retry can post its end. $1 order id, $2 its state, $3 the reason (JSON), $4 new
-- MAC, $5 key version of the new MAC, $6 the MAC as read. Rows: one, or none if the state differs, or if the order has
-- changed since it was read. Locks: the order.
WITH marked AS (
    UPDATE fund.orders o SET state = 'stuck', stuck_from = o.state, problem = $3::json, due_at = NULL, mac = $4, mac_key = $5
    WHERE o.id = $1 AND o.state = $2 AND o.state IN ('posted', 'sent', 'unknown') AND o.mac IS NOT DISTINCT FROM $6
      AND (o.kind IN ('withdrawal', 'own_transfer', 'dispute') OR (o.kind IN ('refund', 'split_refund') AND o.voucher_format = 3))
    RETURNING o.id, o.merchant, o.kind, o.state, o.problem
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, m.problem, clock_timestamp() FROM marked m
)
SELECT m.id FROM marked m
