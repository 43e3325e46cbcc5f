"""The events of the fund service: what became of orders, in order, as `GET /v1/events`, the stream and webhooks tell
it.
"""

from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.fund.order import Kind, State
from fundledger.fund.statements import SQL
from fundledger.outbox.feed import Event, Feed
from fundledger.outbox.horizon import FUND, Horizon

AFTER_POSTING: Final = frozenset({State.POSTED, State.SENT, State.PAID, State.BOUNCED, State.UNKNOWN})
_encode = msgspec.json.Encoder().encode


def fund_feed(dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", name: str) -> Feed:
    """Of one process, which `name` names. Whoever opens it closes it."""

    async def read(after: int, safe: int, limit: int) -> list[Event]:
        return [event_of(row) for row in await pool.fetch(SQL["read_events"], after, safe, limit)]

    return Feed(Horizon(dsn, FUND, f"events {name}"), read)


class Pages:
    """A feed whose answers are as `GET /v1/events` gives them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def read(self, after: int, limit: int, wait_s: float) -> bytes:
        """As of Feed."""
        return await self._feed.page(after, limit, wait_s)

    def stop(self) -> None:
        """Who waits is answered now, and nobody waits from now on."""
        self._feed.stop()

    async def close(self) -> None:
        await self._feed.close()


def event_of(row: asyncpg.Record) -> Event:
    """`id` is made of the order and its state: an order goes into each state once."""
    state = row["event_state"]
    id_ = f"{row['id']}:{state}"
    type_ = f"{row['kind']}.{state}"
    members: dict[str, Any] = {
        "seq": row["seq"],
        "id": id_,
        "type": type_,
        "merchant": row["merchant"],
        "at": _text(row["at"]),
        "order": _order(row, state),
    }
    if row["detail"] is not None:
        members["detail"] = msgspec.Raw(row["detail"].encode())
    return Event(row["seq"], id_, type_, row["merchant"], row["at"].timestamp(), _encode(members))


def _order(row: asyncpg.Record, state: str) -> dict[str, Any]:
    """The order as it stood when it went into this state, though it may have gone on since."""
    sign = 1 if row["kind"] == Kind.WITHDRAWAL else -1
    members: dict[str, Any] = {
        "id": str(row["id"]),
        "kind": row["kind"],
        "merchant": row["merchant"],
        "order_no": row["order_no"],
        "state": state,
        "amount": row["amount"],
        "fee": row["fee"],
        "net": row["amount"] + sign * row["fee"],
        "currency": row["currency"],
        "voucher_id": str(row["voucher_id"]),
        "channel": row["channel"],
        "created_at": _text(row["created_at"]),
    }
    if row["posted_at"] is not None and state in AFTER_POSTING:
        members["posted_at"] = _text(row["posted_at"])
    if row["problem"] is not None and state == State.REFUSED:
        members["problem"] = msgspec.Raw(row["problem"].encode())
    return members


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
