-- The position of a cursor. $1 name. Rows: one, or none. Locks: none.
SELECT c.after FROM outbox.cursors c WHERE c.name = $1
