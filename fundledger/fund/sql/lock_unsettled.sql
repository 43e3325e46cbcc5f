-- Lock pending payments of a merchant, oldest first. $1 merchant, $2 amount to settle (null: the whole amount of at
-- most $3 payments), $4 payments to leave out, $5 the
-- greatest sum to return, $6 the last due day (null: all payments), $7 the time before which a payment without a due day has to
-- be posted. Rows: the payments that the amount covers, or all locked payments if the
-- amount exceeds their sum. `left_over`: the pending amount of the payment. `earlier`: the sum of `left_over` of all
-- earlier payments. `pending`: the sum of `left_over` of all locked payments. Sums above $5 are returned as $5. Locks: all pending payments that were
-- read.
WITH open AS (
    SELECT p.order_id, p.merchant, p.seq, p.amount, p.fee, p.settled, p.fee_settled, p.refunded, p.refunded_unsettled, p.fee_waived,
       p.fee_returned, p.charged_back, p.charged_back_unsettled, p.reversed, p.mac_key, p.mac, p.tax, p.tax_settled, p.tax_returned,
       p.settle_on,
           p.amount - p.settled - p.refunded_unsettled - p.charged_back_unsettled AS left_over
    FROM fund.payments p
    WHERE p.merchant = $1 AND p.settled + p.refunded_unsettled + p.charged_back_unsettled < p.amount AND NOT p.reversed
      AND p.order_id <> ALL ($4::uuid[])
      AND ($6::date IS NULL OR p.settle_on <= $6
           OR (p.settle_on IS NULL AND (SELECT o.posted_at FROM fund.orders o WHERE o.id = p.order_id) < $7::timestamptz))
    ORDER BY p.seq
    LIMIT CASE WHEN $2::bigint IS NULL THEN $3::bigint END
    FOR UPDATE
), in_order AS (
    SELECT o.*, least(sum(o.left_over) OVER (ORDER BY o.seq) - o.left_over, $5::bigint)::bigint AS earlier,
           least(sum(o.left_over) OVER (), $5::bigint)::bigint AS pending
    FROM open o
)
SELECT i.* FROM in_order i WHERE $2::bigint IS NULL OR i.earlier < $2::bigint ORDER BY i.seq
