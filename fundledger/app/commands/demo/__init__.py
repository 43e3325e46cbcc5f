"""CLI command `fundledger demo`: a day of a small platform on services of its own, then a proof of the books."""
