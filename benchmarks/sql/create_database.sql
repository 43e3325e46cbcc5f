-- Create a database. Its name is inserted into the text, because the command takes no parameters. Rows: none. Locks:
-- none.
CREATE DATABASE "NAME"
