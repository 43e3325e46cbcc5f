"""Store of the fund service: derive the key for ids, and read whether the database has orders with
former, unkeyed ids.
"""

from typing import Any

from fundledger.fund.model.ids import Ids, ids_key
from fundledger.fund.store.queries import SQL
from fundledger.security.keys import Keys


async def open_ids(connection: Any, keys: Keys) -> Ids:
    """Return the `Ids` for the fund database. `connection`: an asyncpg connection or pool. Raises KeyFault, and what
    asyncpg raises.
    """
    return Ids(ids_key(keys), former=await connection.fetchval(SQL["former_ids"]) is not None)
