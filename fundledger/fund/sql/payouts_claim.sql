-- Takes withdrawals for their channel, oldest first: marked sent, and kept, before the call goes out. $1 channel, $2 how
-- many at most, $3 after how long (interval) somebody else may ask after them. Rows: those that are the caller's to send.
-- Locks: their rows; what another one holds is passed over, so that whoever ends one meanwhile is not waited for.
WITH next AS (
    SELECT o.id
    FROM fund.orders o
    WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
    ORDER BY o.seq
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
), sent AS (
    UPDATE fund.orders o
    SET state = 'sent'
    FROM next
    WHERE o.id = next.id
    RETURNING o.id, o.merchant, o.amount, o.currency
), kept AS (
    INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at)
    SELECT s.id, $1::text, s.amount, s.currency, clock_timestamp(), clock_timestamp() + $3::interval
    FROM sent s
), told AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT s.id, s.merchant, 'withdrawal', 'sent', json_build_object('channel', $1::text), clock_timestamp()
    FROM sent s
)
SELECT s.id AS order_id, s.amount, s.currency, 0 AS asked FROM sent s
