-- $1 id, $2 merchant, $3 url, $4 types or null, $5 secret, $6 module, $7 how many a merchant may have.
-- Rows: one, none when there are too many. Locks: none.
INSERT INTO outbox.webhooks (id, merchant, url, events, secret, module)
SELECT $1, $2, $3, $4::text[], $5, $6
WHERE (SELECT count(*) FROM outbox.webhooks w WHERE w.merchant = $2 AND w.disabled_at IS NULL) < $7::bigint
RETURNING id, merchant, url, events, created_at, disabled_at, disabled_why
