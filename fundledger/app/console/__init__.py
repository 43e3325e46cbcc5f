"""Console output of a process: log lines, and messages for a person at a terminal. No write blocks a request."""
