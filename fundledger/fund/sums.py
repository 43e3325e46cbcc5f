"""Sums that orders draw on, each under a MAC: what became of a payment, and what a merchant withdrew on a day.

A sum is read under the lock of its row, verified, changed and written with a new MAC, in the transaction of the order
that changes it. A row of before MACs is compared with the orders that it sums instead. One that does not verify is left
as it was found.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from fundledger.fund.macs import OrderMacs
from fundledger.fund.order import Kind, Order, State
from fundledger.fund.orders import AnyConnection, Connection, order_from
from fundledger.fund.rows import DAY, PAYMENT, Day, Progress, day_fields, fields_of_day, payment_fields, progress_of
from fundledger.fund.statements import SQL

_SUMMED: Final = frozenset({Kind.REFUND, Kind.CHARGEBACK, Kind.REVERSAL})


def begun(order: Order) -> Progress:
    """What is kept of a payment that was just posted."""
    now = order.settle == "now"
    settled, fee_settled = (order.amount, order.fee) if now else (0, 0)
    return Progress(order.id, order.merchant, order.seq, order.amount, order.fee, settled, fee_settled)


async def begin_payments(connection: Connection, macs: OrderMacs, payments: Sequence[Order]) -> None:
    """Make the rows of payments, where they are not there yet. Locks the new rows."""
    rows = [begun(order) for order in sorted(payments, key=lambda order: order.id)]
    tags = [macs.rows.tag(PAYMENT, row.fields())[1] for row in rows]
    columns = [[getattr(row, name) for row in rows] for name in ("order_id", "merchant", "seq", "amount", "fee")]
    await connection.execute(SQL["begin_payments"], *columns, tags, macs.rows.version)


async def lock_payments(
    connection: Connection, macs: OrderMacs, ids: Collection[UUID]
) -> tuple[dict[UUID, Progress], set[UUID]]:
    """`(payments as they stand, by id; ids of those whose row does not verify)`. Locks their rows."""
    return await verified(connection, macs, await connection.fetch(SQL["lock_payments"], sorted(ids)))


async def verified(
    connection: AnyConnection, macs: OrderMacs, rows: Sequence[Any]
) -> tuple[dict[UUID, Progress], set[UUID]]:
    """Rows of fund.payments that were read: `(those that verify, by id; ids of the others)`."""
    found = {row["order_id"]: progress_of(row) for row in rows}
    old = [row["order_id"] for row in rows if macs.is_old(row)]
    due = await payments_by_orders(connection, macs, old) if old else {}
    bad = set()
    for row in rows:
        id_ = row["order_id"]
        if id_ in due and found[id_] == due[id_]:
            continue
        if not macs.agrees(PAYMENT, "payment", id_, payment_fields, row):
            bad.add(id_)
    return {id_: progress for id_, progress in found.items() if id_ not in bad}, bad


async def payments_by_orders(
    connection: AnyConnection, macs: OrderMacs, ids: Sequence[UUID]
) -> Mapping[UUID, Progress]:
    """What the rows of these payments have to be, by their orders; none for a payment with an order that does not
    verify.
    """
    due: dict[UUID, Progress] = {}
    bad = set()
    about = []
    for row in await connection.fetch(SQL["orders_of_payments"], ids):
        order = order_from(row)
        if not macs.verifies(order):
            bad.add(order.of_order if order.kind in _SUMMED else order.id)
        elif order.kind is Kind.PAYMENT and order.state is State.POSTED:
            due[order.id] = begun(order)
        elif order.state is not State.REFUSED:
            about.append(order)
    for order in about:
        progress = None if order.of_order is None else due.get(order.of_order)
        if progress is not None:
            _add(progress, order)
    for payment, amount, fee in await connection.fetch(SQL["settled_of_payments"], ids):
        if payment in due:
            due[payment].settled += amount
            due[payment].fee_settled += fee
    return {id_: progress for id_, progress in due.items() if id_ not in bad}


def _add(progress: Progress, order: Order) -> None:
    if order.kind is Kind.REFUND:
        progress.refunded += order.amount
        progress.refunded_unsettled += order.from_pending
        progress.fee_waived += order.fee_waived
        progress.fee_returned += order.fee
    elif order.kind is Kind.CHARGEBACK:
        progress.charged_back += order.amount
    elif order.kind is Kind.REVERSAL:
        progress.reversed = True


async def write_payments(connection: Connection, macs: OrderMacs, payments: Iterable[Progress]) -> None:
    """Write payments as they are now, under the locks of their rows."""
    rows = sorted(payments, key=lambda row: row.order_id)
    if not rows:
        return
    names = ("order_id", *Progress.__struct_fields__[5:])
    columns = [[getattr(row, name) for row in rows] for name in names]
    tags = [macs.rows.tag(PAYMENT, row.fields())[1] for row in rows]
    await connection.execute(SQL["write_payments"], *columns, tags, macs.rows.version)


async def lock_days(connection: Connection, macs: OrderMacs, days: Collection[Day]) -> tuple[dict[Day, int], set[Day]]:
    """`(what was withdrawn; days whose row does not verify, or is gone)`. Locks the rows that are there."""
    asked = sorted(days)
    rows = await connection.fetch(SQL["lock_withdrawal_days"], [m for m, _ in asked], [day for _, day in asked])
    found, bad = await verified_days(connection, macs, rows)
    missing = [key for key in asked if key not in found and key not in bad]
    if missing:
        last = {(m, day) for m, day in await connection.fetch(SQL["last_withdrawals"], [m for m, _ in missing])}
        for key in missing:
            if key in last:
                macs.report("withdrawal_day", _named(key), "a row that is gone", {})
                bad.add(key)
            else:
                found[key] = 0
    return found, bad


async def verified_days(
    connection: AnyConnection, macs: OrderMacs, rows: Sequence[Any]
) -> tuple[dict[Day, int], set[Day]]:
    """Rows of fund.withdrawal_days that were read: `(what was withdrawn, by those that verify; the others)`."""
    found = {(row["merchant"], row["day"]): row["amount"] for row in rows}
    old = [key for row, key in zip(rows, found, strict=True) if macs.is_old(row)]
    due = await days_by_orders(connection, macs, old) if old else {}
    bad = set()
    for row, key in zip(rows, found, strict=True):
        if key in due and found[key] == due[key]:
            continue
        if not macs.agrees(DAY, "withdrawal_day", _named(key), day_fields, row):
            bad.add(key)
    return {key: amount for key, amount in found.items() if key not in bad}, bad


async def write_days(connection: Connection, macs: OrderMacs, days: Mapping[Day, int]) -> None:
    """Write what was withdrawn, under the locks of the rows that there are."""
    keys = sorted(days)
    if not keys:
        return
    tags = [macs.rows.tag(DAY, fields_of_day(key, days[key]))[1] for key in keys]
    columns = [m for m, _ in keys], [day for _, day in keys], [days[key] for key in keys]
    await connection.execute(SQL["write_withdrawal_days"], *columns, tags, macs.rows.version)


async def give_back_days(connection: Connection, macs: OrderMacs, withdrawals: Sequence[Order]) -> None:
    """Take withdrawals off what was withdrawn on their days: they were refused, or bounced. In a transaction."""
    if not withdrawals:
        return
    stands, _ = await lock_days(connection, macs, {day_of(order) for order in withdrawals})
    for order in withdrawals:
        if day_of(order) in stands:
            stands[day_of(order)] -= order.amount
    await write_days(connection, macs, stands)


async def days_by_orders(connection: AnyConnection, macs: OrderMacs, days: Sequence[Day]) -> Mapping[Day, int]:
    """What was withdrawn on these days, by the orders; none for a day with an order that does not verify."""
    due = dict.fromkeys(days, 0)
    bad = set()
    rows = await connection.fetch(SQL["withdrawals_of_days"], [m for m, _ in days], [day for _, day in days])
    for order in map(order_from, rows):
        if not macs.verifies(order):
            bad.add(day_of(order))
        elif order.state not in (State.REFUSED, State.BOUNCED):
            due[day_of(order)] += order.amount
    return {key: amount for key, amount in due.items() if key not in bad}


def day_of(order: Order) -> Day:
    """Where a withdrawal counts."""
    return order.merchant, order.created_at.date()


def _named(key: Day) -> str:
    return f"{key[0]} {key[1]}"
