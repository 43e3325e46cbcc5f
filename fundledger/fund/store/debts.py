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
from fundledger.fund.model.split import merchants_of
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
    """Return the part of the debt of its merchants that an order repays, without its end."""
    return order.amount if order.kind in REPAYING else order.set_off


def repayments(order: Order) -> list[tuple[str, int]]:
    """Return the parts of debts that an order repays, without its end, as pairs of a merchant and an amount."""
    if order.parts is not None:
        return [(part.merchant, part.set_off) for part in order.parts if part.set_off]
    found = [(order.merchant, repaid(order))] if repaid(order) else []
    if order.counter_set_off and order.counterparty is not None:
        found.append((order.counterparty, order.counter_set_off))
    return found


def end_repayments(order: Order) -> list[tuple[str, int]]:
    """Return the parts of debts that the end of an order repays, as pairs of a merchant and an amount."""
    if order.parts is not None:
        return [(part.merchant, part.end_set_off) for part in order.parts if part.end_set_off]
    return [(order.merchant, order.end_set_off)] if order.end_set_off else []


def owing(order: Order) -> list[tuple[str, int]]:
    """Return the debts that a posted order makes, as pairs of a merchant and an amount."""
    if not is_posted(order) or order.kind not in OWING or not order.to_receivable:
        return []
    if order.parts is not None:
        return [(part.merchant, part.to_receivable) for part in order.parts if part.to_receivable]
    return [(order.merchant, order.to_receivable)]


def undecided(order: Order) -> set[str]:
    """Return the merchants whose debts the outcome of a `posting` order may still change."""
    found = {merchant for merchant, _ in repayments(order)}
    if order.kind in CHARGING or (order.to_receivable and order.parts is None):
        return found | set(merchants_of(order))
    return found | {part.merchant for part in order.parts or () if part.to_receivable}


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
    changes = [pair for order in posted for pair in owing(order)]
    if changes:
        merchants = sorted({merchant for merchant, _ in changes})
        tags = [macs.rows.tag(DEBT, (name, 0))[1] for name in merchants]
        ids = [order.id for order in posted if owing(order)]
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


async def set_offs(connection: Connection, macs: OrderMacs, credits_: Mapping[str, int]) -> dict[str, int]:
    """Lock merchants, reserve the set-off of a credit from the debt of each, and return the set-offs by merchant. Call
    this in a transaction. A debt that does not match its MAC is not set off.
    """
    await connection.execute(SQL["lock_merchants"], sorted(credits_))
    debts, _ = await lock(connection, macs, credits_.keys())
    taken = {merchant: min(credit, debts.get(merchant, 0)) for merchant, credit in credits_.items()}
    await write(connection, macs, {merchant: debts[merchant] - part for merchant, part in taken.items() if part})
    return taken


def by_orders(orders: Iterable[Order]) -> dict[str, int]:
    """Return the debts of merchants, computed from all orders that change debts and are not refused."""
    debts: dict[str, int] = {}
    for order in orders:
        repays = [(merchant, -amount) for merchant, amount in repayments(order) + end_repayments(order)]
        for merchant, amount in owing(order) + repays:
            debts[merchant] = debts.get(merchant, 0) + amount
    return debts


async def _compute(connection: Connection, macs: OrderMacs, merchant: str) -> int | None:
    """Return the debt of a merchant, computed from its orders. Return None if one of them does not match its MAC."""
    orders = [order_from(row) for row in await connection.fetch(SQL["orders_of_debts"], [merchant])]
    if not all(macs.verifies(order) for order in orders):
        return None
    owed = by_orders(orders).get(merchant, 0)
    return owed if owed >= 0 else None


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
