-- The last drawn seq, and a new transaction id that is greater than the id of any transaction that drew this seq or an
-- earlier one. CASE draws the id only after the sequence is read. Rows: one. Locks: none; uses up a transaction id.
SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END AS drawn,
       CASE WHEN s.last_value IS NOT NULL THEN pg_current_xact_id()::text::bigint END AS xid
FROM fund.events_outbox_seq s
