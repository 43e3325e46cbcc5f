"""Everything that runs: HTTP services, their processes, and the command line."""
