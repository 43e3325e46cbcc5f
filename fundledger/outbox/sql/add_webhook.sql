-- Insert an endpoint. $1 id, $2 merchant, $3 url, $4 event types or null, $5 secret, $6 module, $7 time, $8 key version
-- of the MAC, $9 MAC, $10 limit per merchant. Rows: one, or none if the merchant has reached the limit. Locks: none.
INSERT INTO outbox.webhooks (id, merchant, url, events, secret, module, created_at, mac_key, mac)
SELECT $1, $2, $3, $4::text[], $5, $6, $7, $8, $9
WHERE (SELECT count(*) FROM outbox.webhooks w WHERE w.merchant = $2 AND w.disabled_at IS NULL) < $10::bigint
RETURNING id
