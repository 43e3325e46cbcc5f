"""Store of the fund service: its SQL queries, loaded from fund/sql. `SQL["insert_orders"]` is the text of
insert_orders.sql.
"""

from typing import Final

from fundledger.database.statements import load
from fundledger.fund.model.order import Order

ORDER_COLUMNS: Final = ", ".join(f"o.{name}" for name in Order.__struct_fields__)
"""The columns of an order: `{order}` in a query. They are listed, because `o.*` would change the result of a prepared
query when a migration adds a column.
"""
SQL: Final = load("fundledger.fund", order=ORDER_COLUMNS)
