"""Types of the ledger, and functions on them. Pure."""
