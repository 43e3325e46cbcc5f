"""Queries of the ledger's store: `SQL["lock_sub_accounts"]`."""

from fundledger.database.statements import load

SQL = load("fundledger.ledger")
