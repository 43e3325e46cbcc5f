-- Move a cursor forwards, never backwards. $1 name, $2 last seq that was sent. Rows: none. Locks: the cursor.
INSERT INTO outbox.cursors (name, after) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET after = EXCLUDED.after, moved_at = clock_timestamp()
WHERE cursors.after < EXCLUDED.after
