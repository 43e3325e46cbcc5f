"""Publisher of outbox events to a Redis stream: each event once, in order.

The id of an element of the stream is the seq of its event. Redis rejects an id that is not greater than the last id. So
an event cannot be added twice, even if two processes publish concurrently. The cursor in the database is moved after
the events are added.

If Redis is unavailable, the next run retries. If Redis restarts empty, the stream continues from the cursor, without
the earlier events. A consumer may find a gap between its last id and the next id. Then it reads the missing events from
`GET /v1/events?after=`, where events have the same seqs. The stream keeps about STREAM_MAX events.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import msgspec
import redis.asyncio as redis
from redis.exceptions import ResponseError

from fundledger.database.statements import load
from fundledger.outbox.feed import Event, Feed

SQL: Final = load("fundledger.outbox")
STREAM_MAX: Final = 1_000_000
AT_ONCE: Final = 500
ANSWER_S: Final = 5.0
"""The time within which Redis has to add the events of a run, in seconds."""
_ADDED_BEFORE: Final = "equal or smaller"
Guard = Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[None]]
"""A function that is called in each transaction before the transaction writes. It raises an exception if another
process may be doing the same work.
"""


class Sent(msgspec.Struct, frozen=True):
    """The result of a run. `done`: the number of events that were sent. `lag_s`: the seconds for which the oldest
    remaining event has waited. `more`: more events can be sent now.
    """

    done: int = 0
    lag_s: float = 0.0
    more: bool = False


class Publisher:
    """The publisher of a feed to the stream with the Redis key `key`. `name`: the name of its cursor in
    the database.
    """

    def __init__(
        self, feed: Feed, pool: "asyncpg.Pool[asyncpg.Record]", store: "redis.Redis", key: str, name: str = "stream"
    ) -> None:
        self._feed = feed
        self._pool = pool
        self._store = store
        self._key = key
        self._name = name

    async def publish(self, guard: Guard) -> Sent:
        """Publish the next events. Raises what redis, asyncpg and `guard` raise, and TimeoutError. May be repeated."""
        after = await self._pool.fetchval(SQL["read_cursor"], self._name) or 0
        events, upto = await self._feed.read(after, AT_ONCE, 0)
        if events:
            await self._add(events)
        if upto > after:
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection)  # type: ignore[arg-type]
                await connection.execute(SQL["move_cursor"], self._name, upto)
        more = len(events) == AT_ONCE
        return Sent(len(events), time.time() - events[-1].at if more else 0.0, more)

    async def _add(self, events: list[Event]) -> None:
        async with self._store.pipeline(transaction=False) as pipe:
            for event in events:
                fields = {"id": event.id, "type": event.type, "event": event.body}
                pipe.xadd(self._key, fields, id=f"{event.seq}-0", maxlen=STREAM_MAX, approximate=True)  # type: ignore[arg-type]
            async with asyncio.timeout(ANSWER_S):
                answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, ResponseError) and _ADDED_BEFORE in str(answer):
                continue
            if isinstance(answer, Exception):
                raise answer
