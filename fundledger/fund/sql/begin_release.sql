-- Record the release of a parked order, before its voucher is posted. $1 order id, $2 attempt, $3 voucher id, $4 set-off, $5
-- amount that the merchant owes, $6 seconds until the recoverer takes the order, $7 new MAC, $8 key version of the new MAC,
-- $9 the MAC as read, $10 parts (JSON) of a split order or null. Rows: the order, or none if it is not parked, is being
-- cleared, or has changed since it was read. Locks: the order.
WITH released AS (
    UPDATE fund.orders o SET state = 'posting', parking = 'release', attempt = $2, voucher_id = $3, set_off = $4,
           step_asked_at = clock_timestamp(), to_receivable = $5, due_at = clock_timestamp() + make_interval(secs => $6), mac = $7, mac_key = $8,
           parts = $10::json
    WHERE o.id = $1 AND o.state = 'parked' AND o.reversed_by IS NULL AND o.mac IS NOT DISTINCT FROM $9
    RETURNING o.id, o.merchant, o.kind, o.state
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, at)
    SELECT r.id, r.merchant, r.kind, r.state, clock_timestamp() FROM released r
)
SELECT r.id FROM released r
