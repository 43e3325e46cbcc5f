-- Record that a channel did not answer a request to pay. $1 order, $2 interval until the next poll, $3 the error, $4
-- new MAC of the order, $5 key version of the new MAC, $6 the MAC as read. Rows: none. Locks: the rows of the order and
-- the payout. An order that has ended, or is already `unknown`, is not changed.
WITH lost AS (
    UPDATE fund.orders o
    SET state = 'unknown', mac = $4, mac_key = $5
    WHERE o.id = $1::uuid AND o.state = 'sent' AND o.ending IS NULL AND o.mac IS NOT DISTINCT FROM $6
    RETURNING o.id, o.kind, o.merchant, o.channel
), told AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT l.id, l.merchant, l.kind, 'unknown', json_build_object('channel', l.channel, 'detail', $3::text),
        clock_timestamp()
    FROM lost l
)
UPDATE fund.payouts p
SET due_at = clock_timestamp() + $2::interval
WHERE p.order_id = $1::uuid AND p.outcome IS NULL
