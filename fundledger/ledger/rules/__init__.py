"""Rules of the ledger: decide whether and how money moves. Pure."""
