-- Check that the database answers. Rows: one. Locks: none.
SELECT 1 AS alive
