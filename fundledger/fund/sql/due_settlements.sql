-- Merchants that are due for an automatic settlement. There are two conditions. The oldest pending payment of the
-- merchant was posted before the end of the latest due day of its calendar. And the merchant has no settlement of this
-- due day, or the last settlement of this day is posted and was full. $1 calendars, $2 for each calendar the order
-- number of the first settlement of its latest due day (`auto-YYYY-MM-DD`), $3 for each calendar the end of this day,
-- $4 number of payments in a full settlement, $5 limit, $6 amount
-- of a full settlement. Rows: merchant, calendar, and order number of the settlement to
-- request, ordered by merchant. Locks: none.
SELECT m.id, d.calendar,
       CASE WHEN t.number = d.number THEN d.number || '-' || coalesce(nullif(substr(t.order_no, 17), '')::int, 1) + 1
            ELSE d.number END AS order_no
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS d (calendar, number, ends_at)
JOIN fund.merchants m ON m.settlement = d.calendar
CROSS JOIN LATERAL (
    SELECT p.order_id FROM fund.payments p
    WHERE p.merchant = m.id AND p.settled + p.refunded_unsettled + p.charged_back_unsettled < p.amount AND NOT p.reversed
    ORDER BY p.seq LIMIT 1
) oldest
JOIN fund.orders paid ON paid.id = oldest.order_id AND paid.posted_at < d.ends_at
LEFT JOIN LATERAL (
    SELECT o.id, o.order_no, o.state, o.amount, left(o.order_no, 15) AS number FROM fund.orders o
    WHERE o.merchant = m.id AND o.kind = 'settlement' AND o.order_no ~ '^auto-\d{4}-\d\d-\d\d(-\d{1,6})?$'
    ORDER BY o.seq DESC LIMIT 1
) t ON true
WHERE t.id IS NULL OR t.number < d.number
   OR (t.number = d.number AND t.state = 'posted'
       AND (t.amount = $6::bigint OR EXISTS (SELECT FROM fund.settled_payments s WHERE s.settlement = t.id OFFSET $4::bigint - 1)))
ORDER BY m.id LIMIT $5
