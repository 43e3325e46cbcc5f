-- Record that the end of an order is posted: the state becomes the end that begin_end.sql recorded. $1 order id, $2 new MAC, $3 key
-- version of the new MACs, $4 the MAC as read, $5 the day of the end, $6 the posting time of its voucher, $7 MAC of its fund.ends
-- row. Rows: the order, or none if this is already recorded, or
-- if the order has changed since it was read. Locks: the order.
WITH marked AS (
    UPDATE fund.orders o SET state = o.ending, due_at = NULL, mac = $2, mac_key = $3
    WHERE o.id = $1 AND o.ending IS NOT NULL AND o.state IN ('posted', 'sent', 'unknown')
      AND o.mac IS NOT DISTINCT FROM $4
    RETURNING {order}
), ended AS (
    INSERT INTO fund.ends (order_id, ending, day, at, mac_key, mac) SELECT m.id, m.ending, $5, $6, $3, $7 FROM marked m
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, json_strip_nulls(json_build_object('channel_ref', m.channel_ref, 'reason', m.reason)),
           clock_timestamp()
    FROM marked m
)
SELECT {order} FROM marked o
