"""Background jobs of both services: each job runs in one of N processes at a time, under a lease in Postgres."""
