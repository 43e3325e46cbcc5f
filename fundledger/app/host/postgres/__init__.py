"""The embedded Postgres: start and stop, system user, database identity, roles."""
