-- What is pending of a merchant, oldest payment first. $1 merchant, $2 how much is to be settled (null: everything, of $3 payments
-- at most), $4 payments that are left out. Rows: the payments that this takes, with what is left of each (`left_over`), of those
-- before it (`earlier`) and of all that were looked at (`pending`); where more is asked for than is pending, all of them. Locks: all
-- that were looked at.
WITH open AS (
    SELECT p.order_id, p.merchant, p.seq, p.amount, p.fee, p.settled, p.fee_settled, p.refunded, p.refunded_unsettled, p.fee_waived,
       p.fee_returned, p.charged_back, p.reversed, p.mac_key, p.mac,
           p.amount - p.settled - p.refunded_unsettled AS left_over
    FROM fund.payments p
    WHERE p.merchant = $1 AND p.settled + p.refunded_unsettled < p.amount AND NOT p.reversed AND p.order_id <> ALL ($4::uuid[])
    ORDER BY p.seq
    LIMIT CASE WHEN $2::bigint IS NULL THEN $3::bigint END
    FOR UPDATE
), in_order AS (
    SELECT o.*, (sum(o.left_over) OVER (ORDER BY o.seq) - o.left_over)::bigint AS earlier,
           (sum(o.left_over) OVER ())::bigint AS pending
    FROM open o
)
SELECT i.* FROM in_order i WHERE $2::bigint IS NULL OR i.earlier < $2::bigint ORDER BY i.seq
