"""Events into a Redis stream: each at least once, in order, and none twice.

An event goes in with its seq as its id. Redis refuses an id that is not behind the last one, so what was added before,
by us or by the holder before us, cannot be added again; only then the cursor in the database is moved.

A Redis that is away is tried again. One that came back empty goes on from the cursor: what was in it before is not
added again. A consumer that finds a gap, between the last id it knows and the first it is given, reads what is missing
from `GET /v1/events?after=`; the ids are the same seqs. The stream keeps about STREAM_MAX events.
"""

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
_TOLD_BEFORE: Final = "equal or smaller"
Guard = Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[None]]
"""Called in a transaction before it writes; raises when somebody else may be doing the same."""


class Sent(msgspec.Struct, frozen=True):
    """How many were `done`, for how long (s) the oldest that is left has waited, whether there is `more`."""

    done: int = 0
    lag_s: float = 0.0
    more: bool = False


class Publisher:
    """From a feed into the stream `key`, with the cursor `name`."""

    def __init__(
        self, feed: Feed, pool: "asyncpg.Pool[asyncpg.Record]", store: "redis.Redis", key: str, name: str = "stream"
    ) -> None:
        self._feed = feed
        self._pool = pool
        self._store = store
        self._key = key
        self._name = name

    async def publish(self, guard: Guard) -> Sent:
        """Once. Raises what redis and asyncpg raise, and what `guard` does; it can always be done again."""
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
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, ResponseError) and _TOLD_BEFORE in str(answer):
                continue
            if isinstance(answer, Exception):
                raise answer
