-- Add the column of payees to the table of payouts of an earlier version (SQLite). Rows: none. Locks: the database file.
ALTER TABLE payouts ADD COLUMN payee TEXT
