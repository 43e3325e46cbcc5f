"""Answers of the account service: their types, their conversion from ledger records, and problems."""
