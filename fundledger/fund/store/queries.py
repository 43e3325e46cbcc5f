"""The SQL queries of the fund service, loaded from fund/sql: `SQL["insert_orders"]`."""

from fundledger.database.statements import load

SQL = load("fundledger.fund")
