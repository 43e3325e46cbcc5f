"""Store of the fund service: the debts of merchants, in fund.debts. Each row has a MAC.

A posted order with a part `to_receivable` increases the debt of its merchant. A credit or a withdrawal reserves its
set-off from the debt when it is inserted, and the set-off of a refused order is released. So the debt is never set off
twice, and the ledger never refuses a set-off because the debt is smaller.

Reservations of one merchant are made under the lock of the merchant. While an order that may still change the debt has
no known outcome, no withdrawal reserves.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from fundledger.fund.model.order import CHARGING, Kind, Order
from fundledger.fund.model.transitions import is_posted
from fundledger.fund.store.mac_layouts import DEBT, debt_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Connection, order_from
from fundledger.fund.store.queries import SQL
from fundledger.security.row_macs import NO_KEY

OWING: Final = CHARGING | {Kind.REVERSAL}
"""Kinds of orders that make a merchant owe their part `to_receivable`."""
REPAYING: Final = frozenset({Kind.RECOVERY, Kind.WRITE_OFF})
"""Kinds of orders whose whole amount repays a debt."""


def repaid(order: Order) -> int:
    """Return the part of a debt that an order repays, without its end."""
    return order.amount if order.kind in REPAYING else order.set_off


def repayments(order: Order) -> list[tuple[str, int]]:
    """Return the merchants whose debts an order repays, without its end, and the amounts that it repays."""
    found = [(order.merchant, repaid(order))] if repaid(order) else []
    if order.counter_set_off and order.counterparty is not None:
        found.append((order.counterparty, order.counter_set_off))
    return found


def owes(order: Order) -> bool:
    """Return whether a posted order increases a debt."""
    return is_posted(order) and order.kind in OWING and order.to_receivable > 0


def undecided(order: Order) -> list[str]:
    """Return the merchants whose debts the outcome of a `posting` order may still change."""
    found = [merchant for merchant, _ in repayments(order)]
    return [*found, order.merchant] if order.to_receivable > 0 or order.kind in CHARGING else found


async def lock(
    connection: Connection, macs: OrderMacs, merchants: Collection[str], computed: set[str] | None = None
) -> tuple[dict[str, int], dict[str, str]]:
    """Lock the debts of merchants. Return `(debts, error texts of debts that do not verify)`, by merchant. A missing
    row is a debt of 0, unless an order made the merchant owe. A row without a MAC is computed from the orders; such
    merchants are added to `computed`.
    """
    names = sorted(merchants)
    found: dict[str, int] = {}
    bad: dict[str, str] = {}
    for row in await connection.fetch(SQL["lock_debts"], names):
        name = row["merchant"]
        owed = await _compute(connection, macs, name) if row["mac_key"] == NO_KEY else None
        if owed is not None:
            await write(connection, macs, {name: owed})
            found[name] = owed
            if computed is not None:
                computed.add(name)
        elif row["mac_key"] != NO_KEY and macs.agrees(DEBT, "debt", name, debt_fields, row):
            found[name] = row["owed"]
        else:
            bad[name] = f"the debt of merchant {name} does not match its MAC"
    missing = [name for name in names if name not in found and name not in bad]
    if missing:
        for row in await connection.fetch(SQL["indebted"], missing):
            macs.report("debt", row["merchant"], "missing row", {})
            bad[row["merchant"]] = f"the fund.debts row of merchant {row['merchant']} is missing"
    return {**{name: 0 for name in missing if name not in bad}, **found}, bad


async def write(connection: Connection, macs: OrderMacs, debts: Mapping[str, int]) -> None:
    """Write debts. The caller holds the locks of the rows. A missing row stays missing."""
    names = sorted(debts)
    if names:
        owed = [debts[name] for name in names]
        tags = [macs.rows.tag(DEBT, (name, debts[name]))[1] for name in names]
        await connection.execute(SQL["write_debts"], names, owed, tags, macs.rows.version)


async def change(connection: Connection, macs: OrderMacs, posted: Sequence[Order], refused: Sequence[Order]) -> None:
    """Add the debts of orders that were just posted, and release the set-offs of orders that were just refused. Call
    this in the transaction that records these outcomes. If a row does not match its MAC, its debt is computed from the
    orders when it is used next: the row that was edited must not verify again without the change.
    """
    changes = [(order.merchant, order.to_receivable) for order in posted if owes(order)]
    if changes:
        merchants = sorted({merchant for merchant, _ in changes})
        tags = [macs.rows.tag(DEBT, (name, 0))[1] for name in merchants]
        ids = [order.id for order in posted if owes(order)]
        await connection.execute(SQL["begin_debts"], merchants, tags, macs.rows.version, ids)
    changes += [repayment for order in refused for repayment in repayments(order)]
    if not changes:
        return
    # A debt that is computed now contains the changes, because the outcomes are recorded before.
    computed: set[str] = set()
    debts, bad = await lock(connection, macs, {merchant for merchant, _ in changes}, computed)
    for merchant, amount in changes:
        if merchant in debts and merchant not in computed:
            debts[merchant] += amount
    await write(connection, macs, debts)
    for merchant in bad:
        await connection.execute(SQL["forget_debt"], merchant)


async def set_off(connection: Connection, macs: OrderMacs, merchant: str, credit: int) -> int:
    """Lock a merchant, reserve the set-off of a credit from its debt, and return the set-off. Call this in a
    transaction. A debt that does not match its MAC is not set off.
    """
    await connection.execute(SQL["lock_merchants"], [merchant])
    owed = (await lock(connection, macs, [merchant]))[0].get(merchant, 0)
    if owed:
        await write(connection, macs, {merchant: owed - min(credit, owed)})
    return min(credit, owed)


def by_orders(orders: Iterable[Order]) -> dict[str, int]:
    """Return the debts of merchants, computed from all orders that change debts and are not refused."""
    debts: dict[str, int] = {}
    for order in orders:
        owed = order.to_receivable if owes(order) else 0
        debts[order.merchant] = debts.get(order.merchant, 0) + owed - order.end_set_off
        for merchant, amount in repayments(order):
            debts[merchant] = debts.get(merchant, 0) - amount
    return debts


async def _compute(connection: Connection, macs: OrderMacs, merchant: str) -> int | None:
    """Return the debt of a merchant, computed from its orders. Return None if one of them does not match its MAC."""
    orders = [order_from(row) for row in await connection.fetch(SQL["orders_of_debts"], [merchant])]
    owed = by_orders(orders).get(merchant, 0)
    return owed if owed >= 0 and all(macs.verifies(order) for order in orders) else None


async def begin(connection: Connection, macs: OrderMacs) -> None:
    """Insert a row for each merchant whose debt earlier orders have changed. Call this in the transaction of the
    migration. If an order does not match its MAC, or if an order without a known outcome makes the sum negative, the
    row gets no MAC, and is computed when it is used. Raises what asyncpg raises.
    """
    orders = [order_from(row) for row in await connection.fetch(SQL["orders_of_debts"], None)]
    bad = {order.merchant for order in orders if not macs.verifies(order)}
    rows = [
        (name, max(0, owed), *((NO_KEY, b"") if name in bad or owed < 0 else macs.rows.tag(DEBT, (name, owed))))
        for name, owed in by_orders(orders).items()
    ]
    await connection.executemany(SQL["insert_debt"], rows)
