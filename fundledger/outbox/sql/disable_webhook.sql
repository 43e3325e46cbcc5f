-- Disable an endpoint. $1 id, $2 time, $3 why, $4 key version of the new MAC, $5 new MAC, $6 the MAC as read. Rows:
-- one, or none if it is already disabled, or has changed since it was read. Locks: the endpoint.
UPDATE outbox.webhooks w SET disabled_at = $2, disabled_why = $3, mac_key = $4, mac = $5
WHERE w.id = $1 AND w.disabled_at IS NULL AND w.mac = $6
RETURNING w.id
