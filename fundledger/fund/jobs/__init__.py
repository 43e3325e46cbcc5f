"""Background jobs of the fund service: recovery, payouts, settlement, day end, MAC sweep."""
