"""Reconciliation: proves the books of both databases. Reads and reports findings; never repairs."""
