"""Store of the fund service: the sums from which orders reserve amounts. A sum is the progress of a payment, or the
withdrawn amount of a merchant on a day. Each sum has a MAC.

An order changes a sum in the transaction that inserts or records the order. This transaction locks the row of the sum,
verifies the row, and writes it with a new MAC. A row older than MACs has no MAC to verify, so it is compared with its
orders. A row that does not verify is not changed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from fundledger.fund.model.days import day_after
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.transitions import RELEASED, UNRESERVED
from fundledger.fund.store.mac_layouts import (
    DAY,
    PAYMENT,
    Day,
    Progress,
    day_fields,
    fields_of_day,
    payment_fields,
    progress_of,
)
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import AnyConnection, Connection, order_from
from fundledger.fund.store.queries import SQL


def begun(order: Order) -> Progress:
    """Return the progress of a payment that was just posted."""
    now = order.settle == "now"
    settled, fee_settled, tax_settled = (order.amount, order.fee, order.tax) if now else (0, 0, 0)
    progress = Progress(order.id, order.merchant, order.seq, order.amount, order.fee, settled, fee_settled)
    progress.tax, progress.tax_settled, progress.settle_on = order.tax, tax_settled, order.settle_on
    return progress


async def begin_payments(connection: Connection, macs: OrderMacs, payments: Sequence[Order]) -> None:
    """Insert the fund.payments rows of payments that have no such row. Locks the new rows."""
    rows = [begun(order) for order in sorted(payments, key=lambda order: order.id)]
    tags = [macs.rows.tag(PAYMENT, row.fields())[1] for row in rows]
    columns = [[getattr(row, name) for row in rows] for name in ("order_id", "merchant", "seq", "amount", "fee")]
    await connection.execute(SQL["begin_payments"], *columns, tags, macs.rows.version, [row.tax for row in rows])


async def lock_payments(
    connection: Connection, macs: OrderMacs, ids: Collection[UUID]
) -> tuple[dict[UUID, Progress], set[UUID]]:
    """Lock the fund.payments rows of payments. Return `(progress by payment id, ids of payments whose row does not
    verify)`.
    """
    return await verified(connection, macs, await connection.fetch(SQL["lock_payments"], sorted(ids)))


async def verified(
    connection: AnyConnection, macs: OrderMacs, rows: Sequence[Any]
) -> tuple[dict[UUID, Progress], set[UUID]]:
    """Verify rows of fund.payments. Return `(progress by id for the rows that verify, ids of the rows that do not
    verify)`.
    """
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
    """Return the progress of payments by id, computed from their orders. A payment is left out if one of its orders
    does not verify.
    """
    due: dict[UUID, Progress] = {}
    bad = set()
    about = []
    for row in await connection.fetch(SQL["orders_of_payments"], ids):
        order = order_from(row)
        if not macs.verifies(order):
            bad.add(order.of_order)
        elif order.kind is Kind.PAYMENT and order.state is State.POSTED:
            due[order.id] = begun(order)
        elif order.state not in UNRESERVED | RELEASED:
            about.append(order)
    for order in about:
        if order.of_order in due:
            _add(due[order.of_order], order)
    for payment, amount, fee, tax in await connection.fetch(SQL["settled_of_payments"], ids):
        if payment in due:
            due[payment].settled += amount
            due[payment].fee_settled += fee
            due[payment].tax_settled += tax
    return {id_: progress for id_, progress in due.items() if id_ not in bad}


def _add(progress: Progress, order: Order) -> None:
    """Add a refund, a chargeback, a dispute or a reversal to the progress of its payment."""
    if order.kind is Kind.REFUND:
        progress.refunded += order.amount
        progress.refunded_unsettled += order.from_pending
        progress.fee_waived += order.fee_waived
        progress.fee_returned += order.fee
        progress.tax_returned += order.tax
    elif order.kind in (Kind.CHARGEBACK, Kind.DISPUTE):
        progress.charged_back += order.amount
        progress.charged_back_unsettled += order.from_pending
        progress.fee_waived += order.fee_waived
    else:
        progress.reversed = True


async def write_payments(connection: Connection, macs: OrderMacs, payments: Iterable[Progress]) -> None:
    """Write the progress of payments. The caller holds the locks of the rows."""
    rows = sorted(payments, key=lambda row: row.order_id)
    if not rows:
        return
    columns = [[getattr(row, name) for row in rows] for name in _WRITTEN]
    taxes = [[getattr(row, name) for row in rows] for name in ("tax_settled", "tax_returned")]
    tags = [macs.rows.tag(PAYMENT, row.fields())[1] for row in rows]
    await connection.execute(SQL["write_payments"], *columns, tags, macs.rows.version, *taxes)


_WRITTEN: Final = (
    *("order_id", "settled", "fee_settled", "refunded", "refunded_unsettled", "fee_waived", "fee_returned"),
    *("charged_back", "charged_back_unsettled", "reversed"),
)
"""The first parameters of write_payments.sql."""


async def lock_days(connection: Connection, macs: OrderMacs, days: Collection[Day]) -> tuple[dict[Day, int], set[Day]]:
    """Lock the existing rows of these days. Return `(withdrawn amounts, bad days)`. A day is bad if its row does not
    verify, or if its row is missing although the merchant's last withdrawal was on that day.
    """
    asked = sorted(days)
    rows = await connection.fetch(SQL["lock_withdrawal_days"], [m for m, _ in asked], [day for _, day in asked])
    found, bad = await verified_days(connection, macs, rows)
    missing = [key for key in asked if key not in found and key not in bad]
    if missing:
        rows = await connection.fetch(SQL["last_withdrawals"], [m for m, _ in missing])
        last = {(row["merchant"], macs.days.day_of(row["created_at"])) for row in rows}
        for key in missing:
            if key in last:
                macs.report("withdrawal_day", _named(key), "missing row", {})
                bad.add(key)
            else:
                found[key] = 0
    return found, bad


async def verified_days(
    connection: AnyConnection, macs: OrderMacs, rows: Sequence[Any]
) -> tuple[dict[Day, int], set[Day]]:
    """Verify rows of fund.withdrawal_days. Return `(withdrawn amounts of the rows that verify, days of the rows that do
    not)`.
    """
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
    """Write the withdrawn amounts of days. The caller holds the locks of the existing rows."""
    keys = sorted(days)
    if not keys:
        return
    tags = [macs.rows.tag(DAY, fields_of_day(key, days[key]))[1] for key in keys]
    columns = [m for m, _ in keys], [day for _, day in keys], [days[key] for key in keys]
    await connection.execute(SQL["write_withdrawal_days"], *columns, tags, macs.rows.version)


async def give_back_days(connection: Connection, macs: OrderMacs, withdrawals: Sequence[Order]) -> None:
    """Subtract refused or bounced withdrawals from the withdrawn amounts of their days. Call this in a transaction."""
    if not withdrawals:
        return
    stands, _ = await lock_days(connection, macs, {day_of(macs, order) for order in withdrawals})
    for order in withdrawals:
        if day_of(macs, order) in stands:
            stands[day_of(macs, order)] -= order.amount
    await write_days(connection, macs, stands)


async def days_by_orders(connection: AnyConnection, macs: OrderMacs, days: Sequence[Day]) -> Mapping[Day, int]:
    """Return the withdrawn amounts of days, computed from the orders. A day is left out if one of its orders does not
    verify.
    """
    due = dict.fromkeys(days, 0)
    bad = set()
    begins = [macs.days.beginning_of(day) for _, day in days]
    ends = [macs.days.beginning_of(day_after(day)) for _, day in days]
    rows = await connection.fetch(SQL["withdrawals_of_days"], [m for m, _ in days], begins, ends)
    for order in map(order_from, rows):
        if not macs.verifies(order):
            bad.add(day_of(macs, order))
        elif order.state not in (State.REFUSED, State.BOUNCED):
            due[day_of(macs, order)] += order.amount
    return {key: amount for key, amount in due.items() if key not in bad}


def day_of(macs: OrderMacs, order: Order) -> Day:
    """Return the merchant and the day of a withdrawal. It counts against the limit of this merchant on this day."""
    return order.merchant, macs.days.day_of(order.created_at)


def _named(key: Day) -> str:
    return f"{key[0]} {key[1]}"
