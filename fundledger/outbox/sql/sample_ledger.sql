-- The last drawn seq of the ledger outbox, and a new transaction id. Every transaction that drew this seq or an earlier
-- seq has a smaller id, because CASE draws the new id only after the sequence is read. Rows: one. Locks: none. Uses up
-- a transaction id.
SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END AS drawn,
       CASE WHEN s.last_value IS NOT NULL THEN pg_current_xact_id()::text::bigint END AS xid
FROM ledger.outbox_seq s
