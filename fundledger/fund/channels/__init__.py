"""Payment channels of the fund service: the interface, an HTTP client, and a bank simulator."""
