"""The events of the fund service: what became of orders, in order, as `GET /v1/events`, the stream and webhooks tell
it.
"""

from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.fund.macs import OrderMacs, Tampered
from fundledger.fund.order import Kind, Order, State
from fundledger.fund.orders import order_from
from fundledger.fund.shown import order_members, time_text
from fundledger.fund.statements import SQL
from fundledger.outbox.feed import Event, Feed
from fundledger.outbox.horizon import FUND, Horizon

AFTER_POSTING: Final = frozenset({State.POSTED, State.SENT, State.PAID, State.BOUNCED, State.UNKNOWN})
UNVERIFIED: Final = "order.unverified"
RETRIED: Final = '"retried_by"'
"""Stands in the detail of an event that a request to retry made."""
_encode = msgspec.json.Encoder().encode


def fund_feed(dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", macs: OrderMacs, name: str) -> Feed:
    """Of one process, which `name` names. Whoever opens it closes it."""

    async def read(after: int, safe: int, limit: int) -> list[Event]:
        return [event_of(row, macs) for row in await pool.fetch(SQL["read_events"], after, safe, limit)]

    return Feed(Horizon(dsn, FUND, f"events {name}"), read)


class Pages:
    """A feed whose answers are as `GET /v1/events` gives them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def read(self, after: int, limit: int, wait_s: float, caller: str = "") -> bytes:
        """As of Feed."""
        return await self._feed.page(after, limit, wait_s, caller)

    @property
    def lag_s(self) -> float:
        """As of Feed."""
        return self._feed.lag_s

    def stop(self) -> None:
        """Who waits is answered now, and nobody waits from now on."""
        self._feed.stop()

    async def close(self) -> None:
        await self._feed.close()


def event_of(row: asyncpg.Record, macs: OrderMacs) -> Event:
    """`id` is made of the order and its state. An order goes into each state once, but for `stuck` and what a retry
    takes it back to: the id of such an event has its seq, too. Of an order that does not match its MAC there is only an
    event `order.unverified`, without its content, which holds up no other event.
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
    members: dict[str, Any] = {
        "seq": seq,
        "id": id_,
        "type": type_,
        "merchant": order.merchant,
        "at": time_text(at),
        "order": order_members(order),
    }
    if detail is not None:
        members["detail"] = msgspec.Raw(detail.encode())
    return Event(seq, id_, type_, order.merchant, at.timestamp(), _encode(members))


def _unverified(order: Order, seq: int, at: datetime) -> Event:
    id_ = f"{order.id}:unverified:{seq}"
    members = {"seq": seq, "id": id_, "type": UNVERIFIED, "merchant": order.merchant, "at": time_text(at)}
    return Event(seq, id_, UNVERIFIED, order.merchant, at.timestamp(), _encode({**members, "order_id": str(order.id)}))


def as_it_was(order: Order, state: State) -> Order:
    """The order as it stood when it went into this state, though it may have gone on since."""
    order.state = state
    order.reversed_by = None
    if state not in AFTER_POSTING:
        order.posted_at = None
    if state not in (State.REFUSED, State.STUCK):
        order.problem = None
    if order.kind is Kind.WITHDRAWAL and state not in (State.PAID, State.BOUNCED):
        # These came with its end.
        order.ending = order.channel_ref = order.reason = None
    return order
