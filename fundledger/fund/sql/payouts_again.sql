-- Record that a payout is sent again, after its channel reported it as absent. $1 order, $2 interval until another
-- process may poll the payout. Rows: one, or none if the order has ended meanwhile. Locks: the rows of the order and
-- the payout, so that the order cannot end concurrently.
WITH open AS (
    SELECT o.id
    FROM fund.orders o
    WHERE o.id = $1::uuid AND o.state IN ('sent', 'unknown') AND o.ending IS NULL
    FOR UPDATE
)
UPDATE fund.payouts p
SET calls = p.calls + 1, called_at = clock_timestamp(), due_at = clock_timestamp() + $2::interval
FROM open
WHERE p.order_id = open.id AND p.outcome IS NULL
RETURNING p.order_id
