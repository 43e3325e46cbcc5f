"""Store of the fund service: events of orders, by seq, for `GET /v1/events`, the Redis stream and webhooks."""

from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from fundledger.fund.model import order_json
from fundledger.fund.model.order import Kind, Order, State, has_end
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
        return [event_of(row, macs) for row in await pool.fetch(SQL["read_events"], after, safe, limit)]

    return Feed(VisibilityWatermark(dsn, FUND, f"events {name}"), read)


def event_of(row: asyncpg.Record, macs: OrderMacs) -> Event:
    """Return the event of a row. The `id` of the event consists of the order id and the state. An order can become
    `stuck` more than once, can be retried more than once, and can be cleared and parked again more than once. So the id
    of such an event also has the seq.

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
    again = state == State.STUCK or (detail is not None and (RETRIED in detail or BY in detail))
    id_ = f"{order.id}:{state}:{seq}" if again else f"{order.id}:{state}"
    type_ = f"{order.kind}.{state}"
    event = order_json.Event(seq, id_, type_, order.merchant, time_text(at), order_json.published(order))
    if detail is not None:
        event.detail = msgspec.Raw(detail.encode())
    return Event(seq, id_, type_, order.merchant, at.timestamp(), _encode(event))


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
        order.end_set_off = 0
        if order.kind is not Kind.DISPUTE:
            order.reason = None
    return order
