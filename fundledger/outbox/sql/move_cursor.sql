-- Somebody has been told up to here; never back. $1 name, $2 after. Rows: none. Locks: the cursor.
INSERT INTO outbox.cursors (name, after) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET after = EXCLUDED.after, moved_at = clock_timestamp()
WHERE cursors.after < EXCLUDED.after
