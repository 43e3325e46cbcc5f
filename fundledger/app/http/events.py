"""HTTP handler of `GET /v1/events`, shared by both services: a page of the worker's event feed, with long polling."""

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Protocol, TypeVar

import msgspec

from fundledger.app.http.openapi.types import count, query
from fundledger.app.http.problems import malformed
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.app.http.worker import Served
from fundledger.json_values import EXACT_MAX, about, encoded
from fundledger.outbox.feed import LIMIT_MAX, WAIT_MAX_S, CallerWaitsTooMuch, Feed

AFTER_MAX: Final = EXACT_MAX
LIMIT_DEFAULT: Final = 100
T = TypeVar("T")
Seq = Annotated[int, msgspec.Meta(ge=0, le=AFTER_MAX)]
QUERY: Final = (
    query("after", Seq, "`next` of the previous page; 0 starts at the first event", 0),
    count(LIMIT_DEFAULT, LIMIT_MAX, "events"),
    query(
        "wait_s",
        Annotated[float, msgspec.Meta(ge=0, le=int(WAIT_MAX_S))],
        "seconds to wait for an event if there is none",
        0,
    ),
)


class Events(msgspec.Struct):
    """A page of events."""

    # The feed has encoded each event once for all readers of the feed.
    events: Annotated[list[Annotated[msgspec.Raw, encoded("Event")]], about("ordered by `seq`")]
    next: Annotated[Seq, about("send it as `after` for the next page, also if this page is empty")]


class Publisher(Served, Protocol):
    """A worker that publishes events. The feed of the worker reads and renders the events."""

    feed: Feed

    async def reading(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read. Raises Unavailable if the database cannot be reached."""


async def get_events(service: Publisher, call: Call) -> Reply:
    """Handle `GET /v1/events`: return a page of events, or wait for the next event.

    The handler calls the admission controller itself, so that a malformed query is rejected before admission. A request
    that waits for events does not count against the concurrency limit and does not delay shutdown. If too many requests
    of one caller wait, the next request of that caller is answered 429. Raises BadRequest (400), Unavailable.
    """
    after = number(call.query, "after", 0, 0, AFTER_MAX)
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    wait_s = _seconds(call.query.get("wait_s", "0"))
    rejection = await service.controller.admit(call.admission, ())
    if rejection is not None:
        return rejection
    service.controller.leave(call.admission, time.monotonic())

    async def read() -> Reply:
        try:
            events, following = await service.feed.read(after, limit, wait_s, call.module)
            return Reply(200, encode(Events([msgspec.Raw(event.body) for event in events], following)))
        except CallerWaitsTooMuch:
            return service.controller.too_many_wait()

    return await service.reading(read)


def _seconds(text: str) -> float:
    whole, _, part = text.partition(".")
    if not text.isascii() or not (whole + part).isdigit() or not whole or len(text) > 9 or float(text) > WAIT_MAX_S:
        raise malformed(f"wait_s must be a number of seconds from 0 to {WAIT_MAX_S:g}", field="wait_s")
    return float(text)
