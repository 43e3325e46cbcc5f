-- Insert one delivery of each event for each subscribed endpoint. $1 seqs, $2 messages, $3 types, $4 merchants, $5
-- bodies. Existing deliveries are not changed. Rows: none. Locks: none.
INSERT INTO outbox.deliveries (webhook, seq, message, body)
SELECT w.id, e.seq, e.message, e.body
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) AS e (seq, message, type, merchant, body)
JOIN outbox.webhooks w ON w.merchant = e.merchant AND w.disabled_at IS NULL AND (w.events IS NULL OR e.type = ANY (w.events))
ON CONFLICT ON CONSTRAINT deliveries_pkey DO NOTHING
