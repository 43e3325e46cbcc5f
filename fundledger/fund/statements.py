"""The statements of the fund service: `SQL["insert_orders"]`."""

from fundledger.database.statements import load

SQL = load("fundledger.fund")
