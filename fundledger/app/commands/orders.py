"""CLI command `fundledger orders stuck`: the orders that need an operator, with or without a running service."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.app.host.postgres.databases import databases
from fundledger.app.host.preflight import CannotServe
from fundledger.fund.model.order import Order, State
from fundledger.fund.store.macs import OrderMacs, open_macs
from fundledger.fund.store.order_lists import FROM, TO, OrderFilter, find_orders
from fundledger.fund.store.orders import read_orders
from fundledger.fund.store.pool import BY_INDEX
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.settings import Settings

STUCK: Final = 1
PAGE: Final = 500
_TITLES: Final = ("ORDER", "KIND", "MERCHANT", "ORDER NO", "AGE", "REASON")
_AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class StuckOrder(msgspec.Struct, frozen=True):
    """A stuck order. `age_s`: seconds since its creation. `stuck_from`: the state that a retry returns it to. `reason`:
    the code of its problem. `verified`: whether the order matches its MAC.
    """

    order: str
    kind: str
    merchant: str
    order_no: str
    age_s: float
    stuck_from: str | None
    reason: str
    detail: str
    verified: bool


class _Problem(msgspec.Struct):
    type: str = ""
    detail: str = ""


async def run_stuck(settings: Settings, *, as_json: bool = False) -> int:
    """Print the stuck orders of all merchants, the oldest first. Return 1 if there is one. Raises CannotServe."""
    async with databases(settings) as dsns:
        if dsns.fund is None:
            raise CannotServe("there is no fund database: FUNDLEDGER_FUND is off, or the fund service never ran")
        try:
            found = await _read(settings, dsns.fund)
        except (*_AWAY, KeyFault) as error:
            raise CannotServe(f"cannot read the orders of the fund database: {error}") from None
    status = STUCK if found else 0
    if as_json:
        orders = [msgspec.structs.asdict(one) for one in found]
        print(msgspec.json.encode({"ok": not found, "orders": orders}).decode())
        return status
    lines = [_TITLES, *map(_line, found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
    for line in lines if found else ["no order is stuck"]:
        row = line if isinstance(line, str) else "  ".join(map(str.ljust, line, widths))
        print(row.rstrip())
    return status


async def _read(settings: Settings, dsn: str) -> list[StuckOrder]:
    options = {"application_name": "fundledger orders", **BY_INDEX}
    connection = await asyncpg.connect(dsn, timeout=10, server_settings=options)
    try:
        macs = await open_macs(connection, FileKeys(settings.data_dir / "fund-keys"))
        return [_shown(order, macs) async for order in _stuck(connection)]
    finally:
        await connection.close()


async def _stuck(connection: Any) -> AsyncIterator[Order]:
    wanted, after = OrderFilter(FROM, TO, state=State.STUCK), None
    while True:
        ids, after = await find_orders(connection, wanted, after, PAGE)
        orders = await read_orders(connection, ids)
        for id_ in ids:
            yield orders[id_]
        if after is None:
            return


def _shown(order: Order, macs: OrderMacs) -> StuckOrder:
    problem = msgspec.json.decode(order.problem or b"{}", type=_Problem)
    return StuckOrder(
        *(str(order.id), str(order.kind), order.merchant, order.order_no),
        round((datetime.now(UTC) - order.created_at).total_seconds(), 3),
        order.stuck_from,
        problem.type.rpartition(":")[2],
        problem.detail,
        macs.verifies(order),
    )


def _line(one: StuckOrder) -> tuple[str, ...]:
    reason = f"{one.reason}: {one.detail}" if one.detail else one.reason
    reason = reason if one.verified else f"{reason} (the order does not match its MAC)"
    return one.order, one.kind, one.merchant, one.order_no, _age(one.age_s), reason


def _age(seconds: float) -> str:
    """Return an age in the largest unit that fits, rounded down."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
