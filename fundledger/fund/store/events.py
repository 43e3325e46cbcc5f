"""Store of the fund service: events of orders, by seq, for `GET /v1/events`, the Redis stream and webhooks."""

from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from fundledger.fund.model import order_json
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.split import merchants_of, of_merchant
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
_encode = msgspec.json.Encoder().encode


def fund_feed(dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", macs: OrderMacs, name: str) -> Feed:
    """Return the event feed of the process with the name `name`. The caller has to close the feed."""

    async def read(after: int, safe: int, limit: int) -> list[Event]:
        return [event_of(row, macs) for row in await pool.fetch(SQL["read_events"], after, safe, limit)]

    return Feed(VisibilityWatermark(dsn, FUND, f"events {name}"), read)


def event_of(row: asyncpg.Record, macs: OrderMacs) -> Event:
    """Return the event of a row. The `id` of the event consists of the order id and the state. An order can become
    `stuck` more than once, and can be retried more than once. So the id of such an event also has the seq.

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
    again = state == State.STUCK or (detail is not None and RETRIED in detail)
    id_ = f"{order.id}:{state}:{seq}" if again else f"{order.id}:{state}"
    type_ = f"{order.kind}.{state}"

    def body_for(merchant: str, shown: Order, detail: str | None = None) -> bytes:
        event = order_json.Event(seq, id_, type_, merchant, time_text(at), order_json.published(shown))
        if detail is not None:
            event.detail = msgspec.Raw(detail.encode())
        return _encode(event)

    parties = tuple((name, body_for(name, own)) for name, own in _shown_to_others(order))
    return Event(seq, id_, type_, order.merchant, at.timestamp(), body_for(order.merchant, order, detail), parties)


def _shown_to_others(order: Order) -> list[tuple[str, Order]]:
    """Return the merchants that have a part in a split order of another owner, each with the order as it is shown to
    it: with its own part only, and without the problem, because a problem may name the account of another merchant.
    """
    others = [] if order.parts is None else [name for name in merchants_of(order) if name != order.merchant]
    found = [(name, of_merchant(order, name)) for name in others]
    return [(name, msgspec.structs.replace(own, problem=None)) for name, own in found if own is not None]


def _unverified(order: Order, seq: int, at: datetime) -> Event:
    id_ = f"{order.id}:unverified:{seq}"
    event = order_json.Event(seq, id_, UNVERIFIED, order.merchant, time_text(at), order_id=order.id)
    return Event(seq, id_, UNVERIFIED, order.merchant, at.timestamp(), _encode(event))


def as_it_was(order: Order, state: State) -> Order:
    """Return an order as it was when it entered `state`: clear the columns that later states set. Changes `order`."""
    order.state = state
    order.reversed_by = None
    if state not in POSTED:
        order.posted_at = None
    if state not in PROBLEMATIC:
        order.problem = None
    if order.kind is Kind.WITHDRAWAL and state not in ENDED:
        # The end of a withdrawal sets these columns.
        order.ending = order.channel_ref = order.reason = None
    return order
