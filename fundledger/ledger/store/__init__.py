"""Store of the ledger: rows of the account database, sessions, statement encoders, reads."""
