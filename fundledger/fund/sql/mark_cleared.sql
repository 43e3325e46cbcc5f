-- Record that parked orders are cleared, or are parked again because their clearing was reversed. $1 order ids, $2
-- `cleared` or `parked`, $3 new MACs, $4 key version of the new MACs, $5 the order that clears or reverses. Rows: one per
-- changed order. An order in another state is left out. Locks: these orders.
WITH marked AS (
    UPDATE fund.orders o SET state = $2, reversed_by = CASE WHEN $2 = 'cleared' THEN o.reversed_by END,
           due_at = CASE WHEN $2 = 'parked' THEN clock_timestamp() END, mac = n.mac, mac_key = $4
    FROM unnest($1::uuid[], $3::bytea[], $5::uuid[]) AS n (id, mac, by)
    WHERE o.id = n.id AND o.id = ANY ($1::uuid[]) AND o.state = CASE $2 WHEN 'cleared' THEN 'parked' ELSE 'cleared' END
    RETURNING o.id, o.merchant, o.kind, o.state, n.by
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, json_build_object('by', m.by), clock_timestamp() FROM marked m
)
SELECT m.id FROM marked m
