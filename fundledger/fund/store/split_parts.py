"""Store of the fund service: the parts of split orders by merchant, in fund.split_parts. Each row has a MAC.

A row repeats a part of `Order.parts`, so that the orders of a merchant are found by its parts. The row of a split
payment also has the amounts of the part that were refunded or charged back. A refund or a chargeback changes them in
the transaction that inserts or records it, under the lock of the row.
"""

from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.store.mac_layouts import PART, PartProgress, part_fields, part_progress_of
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Connection
from fundledger.fund.store.queries import SQL

_amounts = attrgetter("amount", "fee", "tax", "set_off", "to_receivable", "end_set_off")
Parts = dict[str, PartProgress]
"""The parts of one split order, by merchant."""


def begun(order: Order) -> list[PartProgress]:
    """Return the parts of an order that was just inserted."""
    return [PartProgress(order.id, part.merchant, order.kind, order.seq, *_amounts(part)) for part in order.parts or ()]


async def insert(connection: Connection, macs: OrderMacs, orders: Iterable[Order]) -> None:
    """Insert the parts of orders that were just inserted, in the same transaction. Locks the new rows."""
    rows = [part for order in orders if order.parts is not None for part in begun(order)]
    if rows:
        names = PartProgress.__struct_fields__[:9]
        tags = [macs.rows.tag(PART, row.fields())[1] for row in rows]
        await connection.execute(SQL["insert_split_parts"], *_columns(rows, names), tags, macs.rows.version)


async def lock(
    connection: Connection, macs: OrderMacs, payments: Collection[Order]
) -> tuple[dict[UUID, Parts], dict[UUID, str]]:
    """Lock the parts of split payments. Return `(parts by payment id, error texts of payments by id)`. The error is
    that a row is missing, does not verify, or differs from the payment.
    """
    if not payments:
        return {}, {}
    found: dict[UUID, Parts] = {payment.id: {} for payment in payments}
    bad: dict[UUID, str] = {}
    for row in await connection.fetch(SQL["lock_split_parts"], sorted(found)):
        id_, merchant = row["order_id"], row["merchant"]
        if macs.agrees(PART, "split_part", f"{id_} {merchant}", part_fields, row):
            found[id_][merchant] = part_progress_of(row)
        else:
            bad[id_] = f"the part of merchant {merchant} in order {id_} does not match its MAC"
    for payment in payments:
        if payment.id not in bad and _terms(found[payment.id].values()) != _terms(begun(payment)):
            macs.report("split_payment", payment.id, "parts", {"parts": sorted(found[payment.id])})
            bad[payment.id] = f"the fund.split_parts rows of order {payment.id} differ from the order"
    return {id_: parts for id_, parts in found.items() if id_ not in bad}, bad


def _terms(parts: Iterable[PartProgress]) -> list[tuple[str, int, int, int]]:
    return sorted((part.merchant, part.amount, part.fee, part.tax) for part in parts)


async def write(connection: Connection, macs: OrderMacs, parts: Iterable[PartProgress]) -> None:
    """Write parts. The caller holds the locks of the rows."""
    rows = sorted(parts, key=lambda part: (part.order_id, part.merchant))
    if rows:
        names = ("order_id", "merchant", *PartProgress.__struct_fields__[7:])
        tags = [macs.rows.tag(PART, row.fields())[1] for row in rows]
        await connection.execute(SQL["write_split_parts"], *_columns(rows, names), tags, macs.rows.version)


async def rewrite(connection: Connection, macs: OrderMacs, orders: Iterable[Order]) -> None:
    """Write the set-offs and debts of the parts of orders, after these have changed. The caller has changed the orders
    in the same transaction. The rows of a posted split payment must not be rewritten, because they also have what came
    back.
    """
    await write(connection, macs, [part for order in orders for part in begun(order)])


def take(parts: Parts, order: Order, sign: int = 1) -> None:
    """Reserve the amounts of a split refund or chargeback on the parts of its payment. With `sign` -1, release them."""
    for part in order.parts or ():
        of = parts[part.merchant]
        if order.kind is Kind.SPLIT_CHARGEBACK:
            of.charged_back += sign * part.amount
        else:
            of.refunded += sign * part.amount
            of.fee_returned += sign * part.fee
            of.tax_returned += sign * part.tax


def are_posted(order: Order) -> bool:
    """Return whether refunds and chargebacks of an order may reserve from its parts."""
    return order.kind is Kind.SPLIT_PAYMENT and order.state is State.POSTED


def _columns(rows: Sequence[PartProgress], names: Iterable[str]) -> list[list[Any]]:
    return [[getattr(row, name) for row in rows] for name in names]
