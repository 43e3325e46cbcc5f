-- Whether any endpoint is enabled. Rows: one. Locks: none.
SELECT EXISTS (SELECT FROM outbox.webhooks w WHERE w.disabled_at IS NULL)
