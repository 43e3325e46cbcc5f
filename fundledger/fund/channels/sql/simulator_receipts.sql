-- Create the table of receipts of the bank simulator (SQLite). Rows: none. Locks: the database file.
CREATE TABLE IF NOT EXISTS receipts (
    channel_ref TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    PRIMARY KEY (channel_ref, amount)
)
