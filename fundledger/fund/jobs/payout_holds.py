"""Background job of the fund service, part of the payout job: merchants whose payouts are not sent now."""

from collections.abc import Iterable

from fundledger.fund.model.merchant import MerchantState
from fundledger.fund.store.mac_layouts import MERCHANT, merchant_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL


async def held(connection: AnyConnection, macs: OrderMacs, merchants: Iterable[str]) -> set[str]:
    """Return the merchants among `merchants` to which no payout is sent: they are suspended, or their rows do not match
    their MACs, or are missing. Raises what asyncpg raises.
    """
    names = sorted(set(merchants))
    if not names:
        return set()
    paid = set()
    for row in await connection.fetch(SQL["read_merchants"], names):
        agrees = macs.agrees(MERCHANT, "merchant", row["id"], merchant_fields, row)
        if agrees and row["state"] != MerchantState.SUSPENDED:
            paid.add(row["id"])
    return set(names) - paid
