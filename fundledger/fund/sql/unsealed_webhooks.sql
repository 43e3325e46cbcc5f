-- Some webhooks that have no MAC. $1 how many. Rows: so many. Locks: none.
SELECT w.id, w.merchant, w.url, w.events, w.created_at, w.disabled_at, w.disabled_why, w.secret, w.module
FROM outbox.webhooks w WHERE w.mac_key = 0 LIMIT $1
