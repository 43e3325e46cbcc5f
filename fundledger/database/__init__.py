"""Database infrastructure for all packages: loading of SQL files, numbered migrations, classification of errors."""
