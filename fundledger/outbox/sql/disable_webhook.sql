-- $1 id, $2 why. Rows: the endpoint as it stands, none if there is none. Locks: the endpoint.
UPDATE outbox.webhooks w
SET disabled_at = coalesce(w.disabled_at, clock_timestamp()), disabled_why = coalesce(w.disabled_why, $2)
WHERE w.id = $1
RETURNING w.id, w.merchant, w.url, w.events, w.created_at, w.disabled_at, w.disabled_why
