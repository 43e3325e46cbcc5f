-- Record withdrawals and refunds as `sent` and insert their payouts, before the call to the channel. $1 channel; $2 orders,
-- $3 amounts, $4 currencies, as in their posted vouchers; $5 the MACs as read; $6 new MACs; $7 MACs of the payouts; $8 key
-- version of all new MACs; $9 interval until another process may poll the payouts. Rows: the orders that the
-- caller has to send. Locks: the rows of these orders. Rows that are already locked are skipped, so that the
-- statement never waits for an order that is being ended.
WITH next AS (
    SELECT o.id, c.amount, c.currency, c.mac, c.kept
    FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::bytea[], $6::bytea[], $7::bytea[]) AS c (id, amount, currency, found, mac, kept)
    JOIN fund.orders o ON o.id = c.id AND o.amount = c.amount AND o.currency = c.currency AND o.mac IS NOT DISTINCT FROM c.found
    WHERE (o.kind = 'withdrawal' OR (o.kind IN ('refund', 'split_refund') AND o.voucher_format = 3))
      AND o.state = 'posted' AND o.channel = $1::text AND o.ending IS NULL
    FOR UPDATE OF o SKIP LOCKED
), sent AS (
    UPDATE fund.orders o
    SET state = 'sent', mac = next.mac, mac_key = $8
    FROM next
    WHERE o.id = next.id
    RETURNING o.id, o.seq, o.kind, o.merchant, next.amount, next.currency, next.kept
), kept AS (
    INSERT INTO fund.payouts (order_id, kind, channel, amount, currency, sent_at, due_at, mac_key, mac)
    SELECT s.id, s.kind, $1::text, s.amount, s.currency, clock_timestamp(), clock_timestamp() + $9::interval, $8, s.kept
    FROM sent s
), told AS (
    INSERT INTO fund.events (order_id, merchant, kind, state, detail, at)
    SELECT s.id, s.merchant, s.kind, 'sent', json_build_object('channel', $1::text), clock_timestamp()
    FROM sent s ORDER BY s.seq
)
SELECT s.id AS order_id, s.kind, s.amount, s.currency, 0 AS asked, NULL::text AS channel_ref FROM sent s ORDER BY s.seq
