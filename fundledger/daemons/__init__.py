"""Work that is done by itself: each daemon by one of N processes at a time, by a lease in Postgres."""
