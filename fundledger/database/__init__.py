"""Database infrastructure: SQL statements from files, numbered migrations, classification of errors."""
