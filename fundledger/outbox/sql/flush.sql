-- Write a WAL record and commit it synchronously. When this statement returns, all earlier commits are durable. Rows:
-- one. Locks: none.
SELECT pg_logical_emit_message(true, 'fundledger', '') AS at
