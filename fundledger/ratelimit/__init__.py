"""Who may ask how often, and what is dropped when there is too much: limits, leases, shedding. Knows no HTTP."""
