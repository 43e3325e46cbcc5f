-- Record withdrawals as `sent`, and insert their payouts into a payout file. $1 channel, $2 file, $3 currency, $4 orders in the
-- sequence of the file, $5 amounts, $6 new MACs of the orders, $7 MACs of the payouts, $8 key version of all new MACs. The
-- caller holds the locks of the orders. Rows: the orders. Locks: the new rows.
WITH next AS (
    SELECT c.id, c.amount, c.mac, c.kept, c.line_no
    FROM unnest($4::uuid[], $5::bigint[], $6::bytea[], $7::bytea[]) WITH ORDINALITY AS c (id, amount, mac, kept, line_no)
), sent AS (
    UPDATE fund.orders o
    SET state = 'sent', mac = next.mac, mac_key = $8
    FROM next
    WHERE o.id = next.id AND o.kind = 'withdrawal' AND o.state = 'posted' AND o.ending IS NULL
    RETURNING o.id, o.merchant, next.amount, next.kept, next.line_no
), kept AS (
    INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at, file_no, line_no, mac_key, mac)
    SELECT s.id, $1::text, s.amount, $3::text, clock_timestamp(), NULL, $2::bigint, s.line_no, $8, s.kept
    FROM sent s
), outbox AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT s.id, s.merchant, 'withdrawal', 'sent', json_build_object('channel', $1::text, 'file_no', $2::bigint), clock_timestamp()
    FROM sent s ORDER BY s.line_no
)
SELECT s.id FROM sent s ORDER BY s.line_no
