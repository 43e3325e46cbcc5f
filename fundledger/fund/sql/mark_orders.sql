-- Record the outcomes of `posting` orders: posted, refused or stuck. $1 a JSON array of {id, state, problem, posted_at,
-- attempt, layout, mac, mac_key, sums_mac} (MACs in base64). `mac` is the new MAC of the order. For a payment that is
-- settled later, a fund.payments row is inserted, and `sums_mac` is the MAC of this row. An order is neither changed
-- nor returned if its outcome is already recorded, or if its attempt or layout differs. Commits asynchronously: if a
-- crash loses a recorded outcome, the recoverer requests the same voucher again and records the same outcome. Events
-- are read only after they are durable. Rows: one per order whose outcome was recorded. Locks: these orders.
WITH told AS (
    SELECT t.id, t.state, t.problem, t.posted_at, t.attempt, t.layout, decode(t.mac, 'base64') AS mac, t.mac_key,
           decode(t.sums_mac, 'base64') AS sums_mac
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS soon,
         json_to_recordset($1::json) AS t (id uuid, state text, problem json, posted_at timestamptz, attempt smallint,
                                           layout smallint, mac text, mac_key smallint, sums_mac text)
), marked AS (
    UPDATE fund.orders o SET state = t.state, problem = t.problem, posted_at = t.posted_at, due_at = NULL,
           stuck_from = CASE WHEN t.state = 'stuck' THEN o.state END, mac = t.mac, mac_key = t.mac_key
    FROM told t
    -- The ids are repeated as an array, so that a plan made while the table was empty also uses the primary key.
    WHERE o.id = t.id AND o.id = ANY (ARRAY(SELECT i.id FROM told i)) AND o.state = 'posting'
      AND o.attempt = t.attempt AND o.layout = t.layout
    RETURNING o.id, o.seq, o.kind, o.merchant, o.state, o.amount, o.fee, o.tax, o.settle, o.settle_on, o.problem, t.mac_key, t.sums_mac
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, m.problem, clock_timestamp() FROM marked m ORDER BY m.seq
), unsettled AS (
    INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled, mac_key, mac, tax, settle_on)
    SELECT m.id, m.merchant, m.seq, m.amount, m.fee, 0, 0, m.mac_key, m.sums_mac, m.tax, m.settle_on FROM marked m
    WHERE m.kind = 'payment' AND m.settle = 'later' AND m.state = 'posted'
)
SELECT m.id, m.state FROM marked m
