"""HTTP handlers of the fund service: orders, withdrawals, merchants, bank statements, webhooks, limits."""
