"""Store of the fund service: changes of earlier orders that an outcome causes. Parked orders are cleared, settlements
are reversed, payouts return, orders bounce, disputes are won.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from fundledger.fund.model.flows import reversed_kind
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.store import decisions, split_parts, sums
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Connection, order_from, read_orders
from fundledger.fund.store.queries import SQL


async def record_cleared(
    connection: Connection, macs: OrderMacs, clearings: Sequence[Order], reversals: Sequence[Order]
) -> None:
    """Record the orders that `clearings`, which were just posted, have cleared. The orders whose clearings one of
    `reversals`, which were just posted, has reversed are parked again. Call this in the transaction that records these
    outcomes. An order that does not match its MAC is not changed. Locks the orders.
    """
    by = {order.of_order: order.id for order in clearings if order.of_order}
    await _mark(connection, macs, by, State.CLEARED)
    undone = {order.of_order: order.id for order in reversals if reversed_kind(order) is Kind.PARKED_CLEARING}
    if undone:
        found = await read_orders(connection, [id_ for id_ in undone if id_])
        by = {order.of_order: undone[id_] for id_, order in found.items() if order.of_order}
        await _mark(connection, macs, by, State.PARKED)


async def _mark(connection: Connection, macs: OrderMacs, by: dict[UUID, UUID], state: State) -> None:
    """Change the orders with the ids `by` to a state. `by[id]`: the order that clears or reverses."""
    if not by:
        return
    changed = []
    for order in map(order_from, await connection.fetch(SQL["lock_originals"], sorted(by))):
        if macs.verifies(order):
            reversed_by = order.reversed_by if state is State.CLEARED else None
            changed.append(msgspec.structs.replace(order, state=state, reversed_by=reversed_by))
            macs.seal(changed[-1])
    columns = [order.id for order in changed], state, [order.mac for order in changed], macs.rows.version
    await connection.execute(SQL["mark_cleared"], *columns, [by[order.id] for order in changed])


async def reversed_of(connection: Connection, macs: OrderMacs, reversals: Sequence[Order], kind: Kind) -> list[Order]:
    """Return the orders of a kind that reversals reverse and that match their MACs."""
    ids = sorted({order.of_order for order in reversals if order.of_order and reversed_kind(order) is kind})
    found = await read_orders(connection, ids) if ids else {}
    return [order for order in found.values() if macs.verifies(order)]


async def lock_originals(connection: Connection, macs: OrderMacs, ids: Collection[UUID]) -> dict[UUID, Order]:
    """Lock orders to which other orders refer. Return those that match their MACs."""
    rows = await connection.fetch(SQL["lock_originals"], sorted(ids))
    return {order.id: order for order in map(order_from, rows) if macs.verifies(order)}


async def write_returned(connection: Connection, macs: OrderMacs, withdrawals: Sequence[Order]) -> None:
    """Write the returned amounts of withdrawals, with new MACs. The caller holds the locks of the rows."""
    if withdrawals:
        for order in withdrawals:
            macs.seal(order)
        columns = [o.id for o in withdrawals], [o.returned for o in withdrawals], [o.mac for o in withdrawals]
        await connection.execute(SQL["mark_returned"], *columns, macs.rows.version)


async def release_bounced(connection: Connection, macs: OrderMacs, order: Order) -> None:
    """Release what an order reserved, because it bounced or was won. Call this in the transaction that records the end.
    A row that does not match its MAC is not changed.
    """
    if order.kind is Kind.WITHDRAWAL:
        await sums.give_back_days(connection, macs, [order])
    elif order.kind in (Kind.DISPUTE, Kind.REFUND):
        assert order.of_order is not None
        payments, _ = await sums.lock_payments(connection, macs, {order.of_order})
        for payment in payments.values():
            decisions.take(payment, order, -1)
        await sums.write_payments(connection, macs, payments.values())
    elif order.kind is Kind.SPLIT_REFUND:
        await release_parts(connection, macs, (), [order])


async def release_parts(
    connection: Connection, macs: OrderMacs, freed: Sequence[Order], returned: Sequence[Order]
) -> None:
    """Release the parts of split payments: those of payments whose reversal was refused (`freed`), and the amounts that
    refunds and chargebacks have reserved that were refused or bounced (`returned`). Locks the parts.
    """
    ids = sorted({order.of_order for order in returned if order.of_order})
    payments = {order.id: order for order in freed if order.kind is Kind.SPLIT_PAYMENT}
    if ids:
        found = await read_orders(connection, ids)
        payments |= {order.id: order for order in found.values() if macs.verifies(order)}
    locked, _ = await split_parts.lock(connection, macs, payments.values())
    for order in freed:
        for part in locked.get(order.id, {}).values():
            part.reversed = False
    for order in returned:
        if order.of_order in locked:
            split_parts.take(locked[order.of_order], order, -1)
    await split_parts.write(connection, macs, [part for parts in locked.values() for part in parts.values()])
