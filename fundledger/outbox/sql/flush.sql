-- A record in the log, committed synchronously: when this returns, all that was committed before is durable.
-- Rows: one. Locks: none.
SELECT pg_logical_emit_message(true, 'fundledger', '') AS at
