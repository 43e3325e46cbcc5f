"""Events over HTTP: what happened, in order, at least once; who is early waits."""

import time
from typing import Any, Final

from fundledger.app.fund.orders import SEQ_MAX, number
from fundledger.app.fund.parts import Feed
from fundledger.app.fund.service import FundService
from fundledger.app.problems import malformed
from fundledger.app.render import encode
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.ledger.fault import Unavailable
from fundledger.outbox.feed import CallerWaitsTooMuch

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
WAIT_S_MAX: Final = 30


async def get_events(service: FundService, call: Call) -> Reply:
    """`GET /v1/events?after=&limit=&wait_s=`: a page of what happened after event `after`. Raises Unavailable."""
    after = number(call.query.get("after"), "after", 0, 0, SEQ_MAX)
    limit = number(call.query.get("limit"), "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    wait_s = _seconds(call.query.get("wait_s"))
    feed = service.feed
    if feed is None:
        raise Unavailable("events are not published here")
    # Who waits takes up nobody's capacity.
    service.gate.leave(call.passage, time.monotonic())
    try:
        page = await service.reading(lambda: _read(feed, after, limit, wait_s, call.module))
    except _Denied:
        return service.gate.too_many_wait()
    return Reply(200, page if isinstance(page, bytes) else encode(page))


class _Denied(Exception):
    """Too many requests of the caller wait: its fault, not the database's."""


async def _read(feed: Feed, after: int, limit: int, wait_s: float, caller: str) -> Any:
    try:
        return await feed.read(after, limit, wait_s, caller)
    except CallerWaitsTooMuch as error:
        raise _Denied from error


def _seconds(text: str | None) -> float:
    """Raises BadRequest (400)."""
    if text is None:
        return 0.0
    whole, _, part = text.partition(".")
    if not text.isascii() or not (whole + part).isdigit() or not whole or len(text) > 9 or float(text) > WAIT_S_MAX:
        raise malformed(f"wait_s is a number of seconds from 0 to {WAIT_S_MAX}", field="wait_s")
    return float(text)
