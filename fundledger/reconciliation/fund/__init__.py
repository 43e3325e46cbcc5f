"""Reconciliation of the fund service: the proof of its orders, and of their agreement with the ledger. It reads rows
and reports findings, and never repairs a row.
"""
