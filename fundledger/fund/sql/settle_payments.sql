-- Settle what is pending of a merchant, oldest payment first. $1 merchant, $2 how much (null: everything, of $4 payments at
-- most), $3 the settlement, $4. Of the last payment a part may be settled; its fee in the same part, rounded down
-- (fund/fees.py: part_of). Rows: one: how much was pending (of these $4); what is settled, and the fee of that, null when that
-- is not there. Locks: these payments.
WITH open AS (
    SELECT p.order_id, p.seq, p.amount - p.settled - p.refunded_unsettled AS left_over, p.fee - p.fee_settled - p.fee_waived AS fee_left
    FROM fund.payments p
    WHERE p.merchant = $1 AND p.settled + p.refunded_unsettled < p.amount AND NOT p.reversed
    ORDER BY p.seq
    LIMIT CASE WHEN $2::bigint IS NULL THEN $4::bigint END
    FOR UPDATE
), pending AS (
    SELECT coalesce(sum(o.left_over), 0)::bigint AS amount FROM open o
), wanted AS (
    SELECT coalesce($2::bigint, p.amount) AS amount FROM pending p
), in_order AS (
    SELECT o.*, (sum(o.left_over) OVER (ORDER BY o.seq) - o.left_over)::bigint AS earlier FROM open o
), parts AS (
    SELECT i.order_id, least(i.left_over, w.amount - i.earlier) AS amount, i.left_over, i.fee_left
    FROM in_order i, wanted w, pending p
    WHERE i.earlier < w.amount AND w.amount <= p.amount
), charged AS (
    SELECT t.order_id, t.amount, div(t.fee_left::numeric * t.amount, t.left_over)::bigint AS fee FROM parts t
), settled AS (
    UPDATE fund.payments p SET settled = p.settled + c.amount, fee_settled = p.fee_settled + c.fee
    FROM charged c WHERE p.order_id = c.order_id
), told AS (
    INSERT INTO fund.settled_payments (settlement, payment, amount, fee)
    SELECT $3, c.order_id, c.amount, c.fee FROM charged c
)
SELECT p.amount AS pending, (SELECT sum(c.amount) FROM charged c)::bigint AS amount, (SELECT sum(c.fee) FROM charged c)::bigint AS fee
FROM pending p
