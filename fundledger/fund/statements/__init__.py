"""Bank statements in the fund service: import and matching."""
