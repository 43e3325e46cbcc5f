"""Background jobs of the account service, and the table of these jobs."""
