-- Endpoints, oldest first. $1 merchant, null for all; $2 limit. Rows: one per endpoint. Locks: none.
SELECT w.id, w.merchant, w.url, w.events, w.created_at, w.disabled_at, w.disabled_why, w.secret, w.module, w.mac_key, w.mac
FROM outbox.webhooks w WHERE $1::text IS NULL OR w.merchant = $1 ORDER BY w.created_at, w.id LIMIT $2
