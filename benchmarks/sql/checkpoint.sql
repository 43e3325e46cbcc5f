-- Make a checkpoint after a bulk load, so that no write of the load is left when a measurement starts. Rows: none.
-- Locks: none.
CHECKPOINT
