"""Stuck orders, for the background jobs of the fund service and for API requests: mark an order as `stuck` when no
retry can complete it, and return it to its former state when a caller requests a retry.
"""

import logging
from typing import Any

import msgspec

from fundledger.fund.model.order import Order, State
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import AnyConnection, order_from
from fundledger.fund.store.queries import SQL

_log = logging.getLogger(__name__)


async def mark_stuck(connection: AnyConnection, macs: OrderMacs, order: Order, problem: bytes) -> bool:
    """Mark an order that is `posted`, `sent` or `unknown` as stuck, with the problem (JSON) as its reason. Return
    whether this call changed the state. If so, `order` is updated, and the change is logged. An order that does not
    match its MAC gets no new MAC. Locks the order. May be repeated. Raises what asyncpg raises.
    """
    new = msgspec.structs.replace(order, state=State.STUCK, stuck_from=order.state, problem=problem, due_at=None)
    if macs.verifies(order):
        macs.seal(new)
    changed = problem.decode(), new.mac, new.mac_key, order.mac
    row = await connection.fetchrow(SQL["mark_stuck"], order.id, order.state, *changed)
    if row is None:
        return False
    order.stuck_from, order.state = order.state, State.STUCK
    order.problem, order.due_at = problem, None
    order.mac, order.mac_key = new.mac, new.mac_key
    log_stuck(order)
    return True


async def mark_differing(connection: AnyConnection, macs: OrderMacs, order: Order, channel: str, detail: str) -> None:
    """Mark an order as stuck, because it differs from its voucher, its payout or its payee. Record the difference once.
    Raises what asyncpg raises.
    """
    reason = problem("payout-differs", "Payout differs from posted voucher", detail)
    if await mark_stuck(connection, macs, order, reason):
        evidence = msgspec.json.encode({"detail": detail}).decode()
        await connection.execute(SQL["payouts_finding"], order.id, channel, order.state, "voucher", evidence)


async def retry(
    connection: AnyConnection, macs: OrderMacs, order: Order, module: str, reason: str | None, due_s: float
) -> Order | None:
    """Return a stuck order to its state before `stuck`. An order that waits for the recoverer keeps its state. If the
    next step is to post a voucher, the recoverer takes the order after `due_s` seconds.

    Returns the order. Returns None if the order is neither stuck nor waiting for the recoverer, or if it has changed
    since it was read. `module` is the requester. May be repeated. Raises Tampered, and what asyncpg raises.
    """
    new = order
    if not macs.verifies_before_stuck(order):
        macs.check(order)
    if order.state is State.STUCK:
        new = msgspec.structs.replace(order, state=State(order.stuck_from or ""), stuck_from=None, problem=None)
        macs.seal(new)
    macced = new.mac, new.mac_key, order.mac
    row: Any = await connection.fetchrow(SQL["retry_order"], order.id, module, due_s, reason, *macced)
    return None if row is None else order_from(row)


def problem(code: str, title: str, detail: str) -> bytes:
    """Return a problem that the fund service found. It is JSON, with the members that problems of the account service
    have.
    """
    members = {"type": f"urn:fundledger:problem:{code}", "title": title, "status": 422, "detail": detail}
    return msgspec.json.encode(members)


def log_stuck(order: Order) -> None:
    """Log that an order became stuck. The caller has to call this function once for each change to `stuck`."""
    _log.critical(
        "%s %s is stuck: %s",
        order.kind,
        order.id,
        (order.problem or b"").decode(),
        extra={"event": "order_stuck", "order": str(order.id), "stuck_from": order.stuck_from},
    )
