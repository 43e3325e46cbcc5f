-- The position of a cursor. $1 name. Rows: one, or none if the cursor was never moved. Locks: none.
SELECT c.after FROM outbox.cursors c WHERE c.name = $1
