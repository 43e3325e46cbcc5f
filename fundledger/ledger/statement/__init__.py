"""Statements of ledger accounts, read page by page."""
