"""Model of the ledger: types, and pure functions on them."""
