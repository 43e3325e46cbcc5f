"""Background jobs (jobs): each runs in one of N processes at a time, by a lease in Postgres."""
