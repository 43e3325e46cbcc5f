"""The fund service over HTTP: orders, merchants, and what happened to them, on port 8081."""
