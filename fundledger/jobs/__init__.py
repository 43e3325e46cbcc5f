"""Framework for background jobs of both services. A job runs in one process at a time, under a lease in Postgres."""
