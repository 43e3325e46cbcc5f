-- Close a day: write the sums of the orders that were posted on it, and of the orders that ended on it, once. A
-- second call writes nothing, even if it is concurrent. $1 day, $2 its beginning, $3 its end. Rows: one, or none if the
-- day is already closed. Locks: the row of the day.
WITH closed AS (
    INSERT INTO fund.day_ends (day, orders, begins_at, ends_at, ends)
    SELECT $1::date, (SELECT count(*) FROM fund.orders o WHERE o.posted_at >= $2 AND o.posted_at < $3), $2::timestamptz, $3::timestamptz,
           (SELECT count(*) FROM fund.ends e WHERE e.day = $1)
    ON CONFLICT ON CONSTRAINT day_ends_pkey DO NOTHING
    RETURNING day, orders
), counted AS (
    SELECT o.merchant, o.kind, o.currency, o.state, count(*) AS orders, sum(o.amount) AS amount, sum(o.fee) AS fee,
           sum(o.tax) AS tax, 0::bigint AS ended, 0::numeric AS ended_amount, 0::numeric AS ended_fee
    FROM closed c JOIN fund.orders o ON o.posted_at >= $2 AND o.posted_at < $3
    GROUP BY o.merchant, o.kind, o.currency, o.state
    UNION ALL
    SELECT o.merchant, o.kind, o.currency, e.ending, 0, 0, 0, 0, count(*), sum(o.amount), sum(o.fee)
    FROM closed c JOIN fund.ends e ON e.day = c.day JOIN fund.orders o ON o.id = e.order_id
    GROUP BY o.merchant, o.kind, o.currency, e.ending
), summed AS (
    INSERT INTO fund.day_sums (day, merchant, kind, currency, state, orders, amount, fee, tax, ended, ended_amount, ended_fee)
    SELECT $1::date, n.merchant, n.kind, n.currency, n.state, sum(n.orders), sum(n.amount), sum(n.fee), sum(n.tax), sum(n.ended),
           sum(n.ended_amount), sum(n.ended_fee)
    FROM counted n GROUP BY n.merchant, n.kind, n.currency, n.state
)
SELECT orders FROM closed
