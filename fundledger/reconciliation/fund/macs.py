"""The terms of each order against its MAC."""

import asyncpg

from fundledger.fund.macs import OrderMacs
from fundledger.reconciliation.fund.orders import named, order_of
from fundledger.reconciliation.reading import Rows
from fundledger.reconciliation.report import Check, Difference


async def check_macs(check: Check, orders: Rows, macs: OrderMacs) -> None:
    """Report each order that does not match its MAC, or has none and is not older than MACs."""
    async for row in orders:
        check.rows += 1
        check.examine(row, named, _against_mac, macs)


def _against_mac(row: asyncpg.Record, macs: OrderMacs) -> Difference:
    if not macs.verifies(order_of(row)):
        yield "terms that match its MAC", "no MAC" if row["mac"] is None else "others"
