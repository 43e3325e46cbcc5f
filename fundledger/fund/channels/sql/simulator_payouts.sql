-- Create the table of payouts of the bank simulator (SQLite). Rows: none. Locks: the database file.
CREATE TABLE IF NOT EXISTS payouts (
    ref TEXT PRIMARY KEY,
    channel_ref TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    outcome TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL,
    settles_ms INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 1,
    conflicts INTEGER NOT NULL DEFAULT 0,
    payee TEXT
)
