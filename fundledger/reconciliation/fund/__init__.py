"""Proves the fund service: its orders, and that they and the ledger say the same. Reads, never repairs."""
