"""Host of the services on one machine: supervisor, embedded Postgres and Valkey, start-up checks."""
