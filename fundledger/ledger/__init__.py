"""Ledger: accounts, vouchers, holds, and posting. The package imports nothing of HTTP, Redis or `hotspot`."""
