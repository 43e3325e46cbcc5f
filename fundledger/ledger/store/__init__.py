"""Store of the ledger: database sessions, and functions that read, verify and write rows of the account database."""
