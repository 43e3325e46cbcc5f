-- Payouts with a recorded result whose withdrawal has not ended yet. $1 channel and $2 file, null for all, $3 order to start
-- after, $4 limit. Rows: at most $4, by order id. Locks: none.
SELECT p.order_id, p.kind, p.channel, p.amount, p.currency, p.outcome, p.channel_ref, p.file_no, p.line_no, p.reported, p.reported_reason,
    p.mac_key, p.mac
FROM fund.payouts p
WHERE p.reported IS NOT NULL AND p.outcome IS NULL AND p.order_id > $3::uuid
  AND ($1::text IS NULL OR (p.channel = $1::text AND p.file_no = $2::bigint))
ORDER BY p.order_id LIMIT $4::bigint
