-- Takes withdrawals for their channel: marked sent, and kept, before the call goes out. $1 channel; $2 orders, $3 amounts,
-- $4 currencies, as their vouchers were found to be posted; $5 after how long (interval) somebody else may ask after them.
-- Rows: those that are the caller's to send, as they were found. Locks: their rows; what another one holds is passed over, so
-- that whoever ends one meanwhile is not waited for.
WITH next AS (
    SELECT o.id, c.amount, c.currency
    FROM unnest($2::uuid[], $3::bigint[], $4::text[]) AS c (id, amount, currency)
    JOIN fund.orders o ON o.id = c.id AND o.amount = c.amount AND o.currency = c.currency
    WHERE o.kind = 'withdrawal' AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
    FOR UPDATE OF o SKIP LOCKED
), sent AS (
    UPDATE fund.orders o
    SET state = 'sent'
    FROM next
    WHERE o.id = next.id
    RETURNING o.id, o.seq, o.merchant, next.amount, next.currency
), kept AS (
    INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at)
    SELECT s.id, $1::text, s.amount, s.currency, clock_timestamp(), clock_timestamp() + $5::interval
    FROM sent s
), told AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT s.id, s.merchant, 'withdrawal', 'sent', json_build_object('channel', $1::text), clock_timestamp()
    FROM sent s
)
SELECT s.id AS order_id, s.amount, s.currency, 0 AS asked FROM sent s ORDER BY s.seq
