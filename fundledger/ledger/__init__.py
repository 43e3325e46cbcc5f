"""Ledger: accounts, vouchers, holds, and posting. Independent of HTTP, Redis and the hotspot package."""
