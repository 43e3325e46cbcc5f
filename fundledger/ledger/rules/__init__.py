"""Rules of the ledger: pure functions that decide whether and how money moves."""
