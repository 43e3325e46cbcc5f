-- The last drawn seq of the fund outbox. Rows: one. Locks: none.
SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END AS drawn FROM fund.events_outbox_seq s
