-- Say what became of orders that were posting: posted, refused or stuck. $1 a JSON array of {id, state, problem, posted_at}.
-- One whose outcome was said before is left as it is, and not answered. A payment that is settled later begins to wait.
-- Nobody waits for the disk: what is lost with a server was posted, and is asked for again; events are told from the disk.
-- Rows: one for each that was marked. Locks: these orders.
WITH told AS (
    SELECT t.id, t.state, t.problem, t.posted_at
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS soon,
         json_to_recordset($1::json) AS t (id uuid, state text, problem json, posted_at timestamptz)
), marked AS (
    UPDATE fund.orders o SET state = t.state, problem = t.problem, posted_at = t.posted_at, due_at = NULL,
           stuck_from = CASE WHEN t.state = 'stuck' THEN o.state END
    FROM told t
    -- The ids once more as an array: a plan that was made while the table was empty goes by the primary key, too.
    WHERE o.id = t.id AND o.id = ANY (ARRAY(SELECT i.id FROM told i)) AND o.state = 'posting'
    RETURNING o.id, o.seq, o.kind, o.merchant, o.state, o.amount, o.fee, o.settle, o.problem
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT m.id, m.merchant, m.kind, m.state, m.problem, clock_timestamp() FROM marked m
), unsettled AS (
    INSERT INTO fund.payments (order_id, merchant, seq, amount, fee, settled, fee_settled)
    SELECT m.id, m.merchant, m.seq, m.amount, m.fee, 0, 0 FROM marked m
    WHERE m.kind = 'payment' AND m.settle = 'later' AND m.state = 'posted'
)
SELECT m.id, m.kind, m.state FROM marked m
