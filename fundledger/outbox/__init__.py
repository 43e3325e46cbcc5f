"""What happened, told to others: at least once, in order, to whoever was away as well."""
