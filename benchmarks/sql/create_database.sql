-- Create a database. Its name is inserted into the text, since the statement takes no parameters. Rows: none. Locks: none.
CREATE DATABASE "NAME"
