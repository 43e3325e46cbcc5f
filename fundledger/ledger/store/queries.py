"""Queries of the ledger's store, by file name: `SQL["lock_sub_accounts"]` is `sql/lock_sub_accounts.sql`."""

from fundledger.database.statements import load

SQL = load("fundledger.ledger")
