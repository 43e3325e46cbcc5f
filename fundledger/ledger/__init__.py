"""Ledger: accounts, vouchers, holds, and posting between them. Knows no HTTP, no Redis and no heat."""
