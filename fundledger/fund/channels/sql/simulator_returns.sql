-- Create the table of returned payouts of the bank simulator (SQLite). Rows: none. Locks: the database file.
CREATE TABLE IF NOT EXISTS returns (
    channel_ref TEXT PRIMARY KEY,
    ref TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    returned_ms INTEGER NOT NULL
)
