-- Make a database; its name is filled in, since a statement like this takes no parameters. Rows: none. Locks: none.
CREATE DATABASE "NAME"
