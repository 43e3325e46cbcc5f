"""Reconciliation of the fund service: compares the fields of each order with each other, and with the
order's history.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import asyncpg

from fundledger.fund.model.flows import END_VOUCHER_TYPES, end_entries_of, entries_of
from fundledger.fund.model.order import CHARGING, Kind, Order, State, has_end
from fundledger.fund.model.person import may_approve
from fundledger.fund.model.transitions import (
    DUAL_CONTROL,
    ENDED,
    PROBLEMATIC,
    UNAPPROVED,
    first_of,
    is_posted,
    may_become,
)
from fundledger.fund.store.orders import parts_from
from fundledger.reconciliation.fund.ids import OrderIds
from fundledger.reconciliation.reading import Rows
from fundledger.reconciliation.report import READABLE, Check, Difference, described

FIELDS: Final = frozenset(Order.__struct_fields__)
ONCE_ALONE: Final = frozenset({Kind.WRITE_OFF, Kind.BANK_DIFFERENCE, Kind.REVERSAL})
"""Kinds under dual control of which earlier versions posted orders without an approval."""


def order_of(row: asyncpg.Record) -> Order:
    """Return a row as an order. Raises ValueError if the kind or the state of the order is unknown."""
    fields: dict[str, Any] = {name: value for name, value in row.items() if name in FIELDS}
    if fields.get("parts") is not None:
        fields["parts"] = parts_from(fields["parts"])
    return Order(**{**fields, "kind": Kind(row["kind"]), "state": State(row["state"])})


def named(row: asyncpg.Record) -> str:
    return f"order {row['id']} ({row['kind']} {row['order_no']} of {row['merchant']})"


async def check_orders(checks: Sequence[Check], orders: Rows, events: Rows, ids: OrderIds) -> None:
    """Compare each order with its events, in one merge pass. `checks` has one element, to which findings are added.

    `orders` has to be ordered by id, and `events` by order and seq.
    """
    (check,) = checks
    placed = _placed(events, "order_id", check, _event)
    event = await anext(placed, None)
    async for row in _placed(orders, "id", check, named):
        while event is not None and event["order_id"] < row["id"]:
            check.differs(_event(event), "an order", "none")
            event = await anext(placed, None)
        history = []
        while event is not None and event["order_id"] == row["id"]:
            history.append(event["state"])
            if (event["merchant"], event["kind"]) != (row["merchant"], row["kind"]):
                found = f"{event['kind']} of {event['merchant']}"
                check.differs(_event(event), f"{row['kind']} of {row['merchant']}", found)
            event = await anext(placed, None)
        check.examine(row, named, _against_all, history, ids)
    while event is not None:
        check.differs(_event(event), "an order", "none")
        event = await anext(placed, None)


async def _placed(rows: Rows, key: str, check: Check, name: Callable[[asyncpg.Record], str]) -> Rows:
    """Yield the rows that have a key. A row without a key cannot be merged, so it is reported and skipped."""
    async for row in rows:
        if row[key] is None:
            check.differs(name(row), READABLE, f"{key} is NULL")
        else:
            yield row


def _against_all(row: asyncpg.Record, history: list[str], ids: OrderIds) -> Difference:
    try:
        order = order_of(row)
    except ValueError as error:
        yield "a known kind and state", error
        return
    yield from _against_history(order, history)
    yield from ids.differences(order)
    yield from _against_itself(order)


def _against_itself(order: Order) -> Iterator[tuple[str, str]]:
    may_retry = order.kind in CHARGING or has_end(order) or order.parking is not None
    if order.attempt != 0 and not may_retry:
        yield "one attempt", f"attempt {order.attempt}"
    posted = is_posted(order)
    if (order.posted_at is not None) != posted:
        yield f"{'a' if posted else 'no'} posting time, the order is {order.state}", str(order.posted_at)
    refused = order.state in PROBLEMATIC
    if (order.problem is not None) != refused:
        yield (
            f"{'a' if refused else 'no'} problem, the order is {order.state}",
            "a problem" if order.problem else "none",
        )
    if order.state in ENDED and order.ending != order.state:
        yield f"ending {order.state}", f"ending {order.ending}"
    has_this_end = (order.kind, order.ending) in END_VOUCHER_TYPES and has_end(order)
    if order.ending is not None and not (has_this_end and posted):
        yield "no ending, the order is not posted or has no such end", f"ending {order.ending}"
    if order.kind is Kind.REFUND and posted and order.state is not State.POSTED and not has_end(order):
        yield "posted, the refund of this voucher format has no end", order.state
    parked = order.parking == "release" or order.state in (State.PARKED, State.CLEARED)
    if (order.parked_voucher_id is not None) != parked:
        yield f"{'a' if parked else 'no'} voucher that parked it", str(order.parked_voucher_id)
    yield from _against_approval(order)
    try:
        entries_of(order)
        for kind, ending in END_VOUCHER_TYPES:
            if kind is order.kind and has_end(order):
                end_entries_of(order, ending)
    except (AssertionError, AttributeError, TypeError) as error:
        yield "amounts that are valid for its flow", described(error)


def _against_approval(order: Order) -> Iterator[tuple[str, str]]:
    """Compare the approver of an order with its kind, its state and its requester. Orders of ONCE_ALONE may be older
    than their dual control. The approver of an adjustment could be another person of the same module.
    """
    approver, found = order.approved_by, f"approved by {order.approved_by}"
    if approver is None:
        if order.kind in DUAL_CONTROL and order.kind not in ONCE_ALONE and order.state not in UNAPPROVED:
            yield "approved by another module or person", found
    elif order.kind not in DUAL_CONTROL or order.state in UNAPPROVED:
        yield "no approval", found
    elif approver == order.module or (order.kind is not Kind.ADJUSTMENT and not may_approve(order.module, approver)):
        yield "approved by another module or person", found


def _against_history(order: Order, history: list[str]) -> Iterator[tuple[str, str]]:
    states: list[str] = [first_of(order), *history]
    for i, (before, after) in enumerate(itertools.pairwise(states)):
        if not may_become(order.kind, before, after) or (before == State.STUCK and after != states[i - 1]):
            yield f"a state that comes after {before}", after
            return
    if states[-1] != order.state:
        yield f"{order.state} as the last event", states[-1] if history else "none"


def _event(row: asyncpg.Record) -> str:
    return f"event {row['seq']} of order {row['order_id']}"
