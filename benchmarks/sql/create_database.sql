-- Create a database. The caller inserts the name into the text, because the command takes no parameters. Rows: none.
-- Locks: none.
CREATE DATABASE "NAME"
