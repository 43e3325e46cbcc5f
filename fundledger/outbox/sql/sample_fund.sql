-- The last seq that was drawn, and then an id of our own: whoever drew that seq or one before has a smaller id.
-- CASE: not before the sequence was read. Rows: one. Locks: none; uses up a transaction id.
SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END AS drawn,
       CASE WHEN s.last_value IS NOT NULL THEN pg_current_xact_id()::text::bigint END AS xid
FROM fund.events_outbox_seq s
