-- Insert a receipt: money that the bank received, or that was taken back (SQLite). ?1 channel_ref, ?2 amount, ?3
-- currency, ?4 now (ms). Rows: none. Locks: the database file.
INSERT INTO receipts (channel_ref, amount, currency, received_ms) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (channel_ref, amount) DO NOTHING
