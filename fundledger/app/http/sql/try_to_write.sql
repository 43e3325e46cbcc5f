-- Write 2 MB to a temporary file, and a WAL record that is flushed at the commit. The statement
-- fails if the disk is full. Return whether the transaction is read only. Rows: one. Locks: none; uses up a transaction id.
WITH kept AS MATERIALIZED (SELECT repeat('x', 32768) AS text FROM generate_series(1, 64))
SELECT current_setting('transaction_read_only')::boolean AS read_only
FROM (SELECT count(length(k.text)) AS pieces FROM kept k) k
WHERE k.pieces = 64 AND pg_logical_emit_message(true, 'fundledger', '') IS NOT NULL
