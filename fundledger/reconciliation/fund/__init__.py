"""Reconciliation of the fund service: its orders, and their agreement with the ledger. Reads and reports findings;
never repairs.
"""
