"""Proves the books: reads, records findings, never repairs."""
