"""Bank statements of the fund service: their import, and the matching of their lines with orders."""
