-- Reject orders that wait for approval, or let them expire. $1 order ids, $2 `rejected` or `expired`, $3 the reason
-- (JSON), $4 new MACs, $5 key version of the new MACs, $6 the MACs as read. Rows: one per changed order. An order that
-- does not wait for approval, or has changed since it was read, is left out. Locks: these orders.
WITH closed AS (
    UPDATE fund.orders o SET state = $2, problem = $3::json, mac = n.mac, mac_key = $5
    FROM unnest($1::uuid[], $4::bytea[], $6::bytea[]) AS n (id, mac, found)
    WHERE o.id = n.id AND o.id = ANY ($1::uuid[]) AND o.state = 'created' AND o.mac IS NOT DISTINCT FROM n.found
    RETURNING o.id, o.merchant, o.kind, o.state, o.problem
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT c.id, c.merchant, c.kind, c.state, c.problem, clock_timestamp() FROM closed c
)
SELECT c.id FROM closed c
