-- Payouts without a MAC. $1 order to start after, $2 limit. Rows: at most $2, by order id. Locks: these rows.
SELECT p.order_id, p.kind, p.channel, p.amount, p.currency, p.outcome, p.channel_ref, p.file_no, p.line_no, p.reported,
    p.reported_reason, p.mac_key, p.mac
FROM fund.payouts p WHERE p.mac_key = 0 AND p.order_id > $1 ORDER BY p.order_id LIMIT $2 FOR UPDATE
