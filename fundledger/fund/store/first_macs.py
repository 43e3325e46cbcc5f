"""Store of the fund service: first MACs of old merchants, fee rules and webhooks, which no other rows can confirm."""

from collections.abc import Callable
from typing import Any, Final

from fundledger.fund.store.mac_layouts import FEE_RULE, MERCHANT, fee_rule_fields, merchant_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.queries import SQL
from fundledger.outbox.webhooks import WEBHOOK, webhook_fields
from fundledger.security.keys import Keys

AT_ONCE: Final = 1000
_KINDS: Final[tuple[tuple[str, bytes, str, Callable[[Any], tuple[object, ...]]], ...]] = (
    ("merchants", MERCHANT, "id", merchant_fields),
    ("fee_rules", FEE_RULE, "version", fee_rule_fields),
    ("webhooks", WEBHOOK, "id", webhook_fields),
)


async def seal_first(connection: Any, keys: Keys) -> None:
    """Write the MACs of the rows that have none. Call this in the transaction of the migration, so that no service can
    write a row concurrently. After this call, a row without a MAC does not verify. Raises what asyncpg raises.
    """
    macs = OrderMacs(keys).rows
    for name, kind, key, fields_of in _KINDS:
        while rows := await connection.fetch(SQL[f"unsealed_{name}"], AT_ONCE):
            tags = [macs.tag(kind, fields_of(row))[1] for row in rows]
            await connection.execute(SQL[f"seal_{name}"], [row[key] for row in rows], tags, macs.version)
