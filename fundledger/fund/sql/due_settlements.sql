-- Open merchants with pending payments that are due. The rules are arrays, in parallel: $1 calendars, $2 settlement days (-1: none),
-- $3 settlement cuts (empty: none), $4 regions, $5 the last due day, $6 the last day of the calendar up to this day, $7 its
-- beginning, before which a payment without a due day has to be posted. $8 merchant to start after, $9 limit. Rows: merchant, the
-- latest day on which one of the payments is due, its last automatic settlement, and whether this is reversed or being reversed, by
-- merchant. Locks: none.
SELECT m.id, d.due_on, t.order_no, t.state, t.reversed_by IS NOT NULL AS undone
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::date[], $6::date[], $7::timestamptz[])
    AS r (calendar, days, cut, region, last_due, calendar_day, begins_at)
JOIN fund.merchants m ON m.settlement = r.calendar AND coalesce(m.settlement_days, -1) = r.days
    AND coalesce(m.settlement_cut, '') = r.cut AND coalesce(m.settlement_region, m.currency) = r.region
CROSS JOIN LATERAL (
    SELECT greatest(
        (SELECT p.settle_on FROM fund.payments p
         WHERE p.merchant = m.id AND p.settled + p.refunded_unsettled + p.charged_back_unsettled < p.amount AND NOT p.reversed
           AND p.settle_on <= r.last_due
         ORDER BY p.settle_on DESC LIMIT 1),
        (SELECT r.calendar_day
         FROM (SELECT p.order_id FROM fund.payments p
               WHERE p.merchant = m.id AND p.settled + p.refunded_unsettled + p.charged_back_unsettled < p.amount AND NOT p.reversed
                 AND p.settle_on IS NULL
               ORDER BY p.seq LIMIT 1) oldest
         JOIN fund.orders o ON o.id = oldest.order_id AND o.posted_at < r.begins_at)
    ) AS due_on
) d
LEFT JOIN LATERAL (
    SELECT o.order_no, o.state, o.reversed_by FROM fund.orders o
    WHERE o.merchant = m.id AND o.kind = 'settlement' AND o.order_no ~ '^auto-\d{4}-\d\d-\d\d(-\d{1,6})?$'
    ORDER BY o.seq DESC LIMIT 1
) t ON true
WHERE m.state = 'open' AND d.due_on IS NOT NULL AND m.id > $8
ORDER BY m.id LIMIT $9
