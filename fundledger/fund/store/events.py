"""Store of the fund service: events of orders, by seq, for `GET /v1/events`, the Redis stream and webhooks."""

import asyncio
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from fundledger.fund.model import order_json, split
from fundledger.fund.model.order import PLATFORM, Kind, Order, State, has_end
from fundledger.fund.model.split import merchants_of, of_merchant, without_debts_of_others
from fundledger.fund.model.transitions import ENDED, POSTED, PROBLEMATIC
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import order_from
from fundledger.fund.store.queries import SQL
from fundledger.json_values import time_text
from fundledger.outbox.feed import Event, Feed
from fundledger.outbox.watermark import FUND, VisibilityWatermark

UNVERIFIED: Final = "order.unverified"
RETRIED: Final = '"retried_by"'
"""A member in the details of an event. Only an event that was caused by a request to retry has this member."""
BY: Final = '"by"'
"""A member in the details of an event. Only an event that another order has caused has this member."""
_encode = msgspec.json.Encoder().encode


def fund_feed(dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", macs: OrderMacs, name: str) -> Feed:
    """Return the event feed of the process with the name `name`. The caller has to close the feed."""

    async def read(after: int, safe: int, limit: int) -> list[Event]:
        events = []
        for row in await pool.fetch(SQL["read_events"], after, safe, limit):
            events.append(event_of(row, macs))
            if len(events) % 50 == 0:
                # Requests of this worker must not wait for a whole page.
                await asyncio.sleep(0)
        return events

    return Feed(VisibilityWatermark(dsn, FUND, f"events {name}"), read)


def event_of(row: asyncpg.Record, macs: OrderMacs) -> Event:
    """Return the event of a row. The `id` of the event consists of the order id and the state. An order can become
    `stuck`, retried, cleared, released or parked again more than once. So the id of such an event also has the seq.

    If the order does not match its MAC, the event has the type `order.unverified` and no content. So the order does not
    delay other events.
    """
    columns = dict(row)
    seq, state, at, detail = [columns.pop(f"event_{name}") for name in ("seq", "state", "at", "detail")]
    there = order_from(columns)
    try:
        macs.check(there)
        order = as_it_was(there, State(state))
    except (Tampered, ValueError):
        return _unverified(there, seq, at)
    # Without a detail, only a release enters `posting`. With one, only a refused release enters `parked`.
    released = state == State.POSTING and detail is None
    again = released or (state in (State.STUCK, State.PARKED) and detail is not None)
    again = again or (detail is not None and (RETRIED in detail or BY in detail))
    id_ = f"{order.id}:{state}:{seq}" if again else f"{order.id}:{state}"
    type_ = f"{order.kind}.{state}"

    def body_for(merchant: str, shown: Order, detail: str | None = None) -> bytes:
        event = order_json.Event(seq, id_, type_, merchant, time_text(at), order_json.published(shown))
        if detail is not None:
            event.detail = msgspec.Raw(detail.encode())
        return _encode(event)

    def for_each() -> list[tuple[str, bytes]]:
        return [(name, body_for(name, own)) for name, own in _shown(order)]

    body = body_for(order.merchant, order, detail)
    return Event(seq, id_, type_, order.merchant, at.timestamp(), body, None if order.parts is None else for_each)


def _shown(order: Order) -> list[tuple[str, Order]]:
    """Return the merchants that get the event of a split order, each with the order as it is shown to it. A merchant
    gets its own part only. The owner gets all parts, without the debts of other merchants. Each gets it without the
    problem, because a problem may name the account of another merchant.
    """
    found = [(name, of_merchant(order, name)) for name in merchants_of(order) if name != order.merchant]
    if order.merchant != PLATFORM:
        found.append((order.merchant, without_debts_of_others(order, order.merchant)))
    return [(name, msgspec.structs.replace(own, problem=None)) for name, own in found if own is not None]


def _unverified(order: Order, seq: int, at: datetime) -> Event:
    id_ = f"{order.id}:unverified:{seq}"
    event = order_json.Event(seq, id_, UNVERIFIED, order.merchant, time_text(at), order_id=order.id)
    return Event(seq, id_, UNVERIFIED, order.merchant, at.timestamp(), _encode(event))


def as_it_was(order: Order, state: State) -> Order:
    """Return an order as it was when it entered `state`: clear the columns that later states set. Changes `order`."""
    order.state = state
    order.reversed_by = None
    order.returned = 0
    if state not in POSTED:
        order.posted_at = None
    if state not in PROBLEMATIC:
        order.problem = None
    if has_end(order) and state not in ENDED:
        # The end of the order sets these columns.
        order.ending = order.channel_ref = None
        split.end_set_off(order, {})
        if order.kind is not Kind.DISPUTE:
            order.reason = None
    return order
