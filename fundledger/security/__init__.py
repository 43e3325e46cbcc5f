"""Security: MAC keys, row MACs and bearer tokens. The package imports no other package of fundledger."""
