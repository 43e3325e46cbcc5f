-- Whether there is an endpoint to tell anything to. Rows: one. Locks: none.
SELECT EXISTS (SELECT FROM outbox.webhooks w WHERE w.disabled_at IS NULL)
