"""Store of the fund service: access to rows of its database (orders, reservations, merchants, events, MACs)."""
