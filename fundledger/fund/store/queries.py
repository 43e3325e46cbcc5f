"""Store of the fund service: its SQL queries, loaded from fund/sql. `SQL["insert_orders"]` is the text of
insert_orders.sql.
"""

from fundledger.database.statements import load

SQL = load("fundledger.fund")
