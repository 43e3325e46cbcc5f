-- Written before a payout is sent again, which its channel said it was never asked for. $1 order, $2 after how long
-- (interval) somebody else may ask after it. Rows: one, or none if the order was ended meanwhile. Locks: the order's row and
-- the payout's, so that no end comes between.
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
