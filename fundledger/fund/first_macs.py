"""The first MACs of rows that nothing else tells about: merchants, fee rules and webhooks of before MACs."""

from collections.abc import Callable
from typing import Any, Final

from fundledger.fund.macs import OrderMacs
from fundledger.fund.rows import FEE_RULE, MERCHANT, fee_rule_fields, merchant_fields
from fundledger.fund.statements import SQL
from fundledger.outbox.webhooks import WEBHOOK, webhook_fields
from fundledger.security.keys import Keys

AT_ONCE: Final = 1000
_KINDS: Final[tuple[tuple[str, bytes, str, Callable[[Any], tuple[object, ...]]], ...]] = (
    ("merchants", MERCHANT, "id", merchant_fields),
    ("fee_rules", FEE_RULE, "version", fee_rule_fields),
    ("webhooks", WEBHOOK, "id", webhook_fields),
)


async def seal_first(connection: Any, keys: Keys) -> None:
    """Give MACs to the rows that have none, in the transaction of the migration: no service can have written one since,
    and from then on one without does not verify. Raises what asyncpg raises.
    """
    macs = OrderMacs(keys).rows
    for name, kind, key, fields_of in _KINDS:
        while rows := await connection.fetch(SQL[f"unsealed_{name}"], AT_ONCE):
            tags = [macs.tag(kind, fields_of(row))[1] for row in rows]
            await connection.execute(SQL[f"seal_{name}"], [row[key] for row in rows], tags, macs.version)
