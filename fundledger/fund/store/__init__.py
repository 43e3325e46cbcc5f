"""Row access of the fund database: orders, reservations, merchants, events, MACs."""
