"""Reconciliation: the proof of the books of both databases. It reads rows and reports findings, and never repairs a
row.
"""
