-- Webhooks without a MAC. $1 limit. Rows: at most $1. Locks: none.
SELECT w.id, w.merchant, w.url, w.events, w.created_at, w.disabled_at, w.disabled_why, w.secret, w.module
FROM outbox.webhooks w WHERE w.mac_key = 0 LIMIT $1
