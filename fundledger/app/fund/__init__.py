"""HTTP API of the fund service (port 8081): orders, merchants, bank statements, events, webhooks."""
