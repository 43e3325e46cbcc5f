-- The channel did not answer. $1 order, $2 when (interval from now) it is asked, $3 why, $4 the order's MAC then, $5 key
-- of that, $6 the MAC that it was read with. Rows: none. Locks: the order's row
-- and the payout's. An order that was ended, or is unknown already, stays as it is.
WITH lost AS (
    UPDATE fund.orders o
    SET state = 'unknown', mac = $4, mac_key = $5
    WHERE o.id = $1::uuid AND o.state = 'sent' AND o.ending IS NULL AND o.mac IS NOT DISTINCT FROM $6
    RETURNING o.id, o.merchant, o.channel
), told AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT l.id, l.merchant, 'withdrawal', 'unknown', json_build_object('channel', l.channel, 'detail', $3::text),
        clock_timestamp()
    FROM lost l
)
UPDATE fund.payouts p
SET due_at = clock_timestamp() + $2::interval
WHERE p.order_id = $1::uuid AND p.outcome IS NULL
