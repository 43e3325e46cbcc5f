-- Write a record to the WAL and commit synchronously. When the query returns, all earlier commits are durable.
-- Rows: one. Locks: none.
SELECT pg_logical_emit_message(true, 'fundledger', '') AS at
