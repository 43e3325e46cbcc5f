-- An endpoint. $1 id. Rows: one, or none if there is no such endpoint. Locks: none.
SELECT w.id, w.merchant, w.url, w.events, w.created_at, w.disabled_at, w.disabled_why, w.secret, w.module, w.mac_key, w.mac
FROM outbox.webhooks w WHERE w.id = $1
