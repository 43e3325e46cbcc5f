-- Close a day (UTC): write the sums of its orders, once. A second call writes nothing, even if it is concurrent. $1
-- day. Rows: one, or none if the day is already closed. Locks: the row of the day.
WITH closed AS (
    INSERT INTO fund.day_ends (day, orders)
    SELECT $1, count(*) FROM fund.orders o
    WHERE o.posted_at >= $1::date::timestamp AT TIME ZONE 'UTC' AND o.posted_at < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
    ON CONFLICT ON CONSTRAINT day_ends_pkey DO NOTHING
    RETURNING day, orders
), summed AS (
    INSERT INTO fund.day_sums (day, merchant, kind, currency, state, orders, amount, fee, tax)
    SELECT c.day, o.merchant, o.kind, o.currency, o.state, count(*), sum(o.amount), sum(o.fee), sum(o.tax)
    FROM closed c JOIN fund.orders o ON o.posted_at >= c.day::timestamp AT TIME ZONE 'UTC'
                                    AND o.posted_at < (c.day + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY c.day, o.merchant, o.kind, o.currency, o.state
)
SELECT orders FROM closed
