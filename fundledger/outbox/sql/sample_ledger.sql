-- The same as sample_fund.sql, for the ledger. Rows: one. Locks: none; uses up a transaction id.
SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END AS drawn,
       CASE WHEN s.last_value IS NOT NULL THEN pg_current_xact_id()::text::bigint END AS xid
FROM ledger.outbox_seq s
