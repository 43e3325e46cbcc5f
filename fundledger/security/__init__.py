"""Security: MAC keys, row MACs and bearer tokens. Imports no other package of the project."""
