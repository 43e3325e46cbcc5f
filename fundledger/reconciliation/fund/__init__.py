"""Reconciliation of the fund service: its orders, and their agreement with the ledger. Reads, never repairs."""
