"""Requests create no reference cycles, also while the store does not answer: a garbage collection stops the worker."""

import asyncio
import collections
import gc
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fundledger.outbox import feed as feed_module
from fundledger.outbox.feed import Feed
from fundledger.ratelimit.quota.store import Store, StoreAway
from fundledger.ratelimit.stats import Limits
from tests.support.valkey import OwnValkey

REQUESTS = 400
FEW = 0.5
"""Number of objects in cycles for each request that is accepted, because timers of the Redis library leave some."""


async def objects_in_cycles(work: Callable[[], Awaitable[Any]]) -> collections.Counter[str]:
    """Return the objects that only the garbage collector could free after `work`, by type."""
    await work()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await work()
        gc.collect()
        return collections.Counter(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_requests_that_the_store_does_not_answer_leave_no_cycles() -> None:
    async with OwnValkey() as valkey:
        store = Store(valkey.url, f"worker-{random.getrandbits(32)}", Limits(), 1, 0.05)
        running = asyncio.create_task(store.run())
        lates: list[Any] = []

        async def one() -> None:
            # Like the limiter, the caller keeps an object until the reply is known.
            kept = [object()]

            def late(reply: Any) -> None:
                lates.append(reply)
                kept.clear()

            with pytest.raises(StoreAway, match=r"no answer in time"):
                await store.decide(["key"], [1, 10, 1_000_000, 10, 1, 1, 0], late)

        async def all_of_them() -> None:
            store.breaker.open = False
            await asyncio.gather(*(one() for _ in range(REQUESTS)))

        valkey.pause()
        try:
            found = await objects_in_cycles(all_of_them)
        finally:
            valkey.resume()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert found.total() < FEW * REQUESTS, found.most_common(10)


async def test_readers_of_events_leave_no_cycles_when_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        safe = 0

        async def look(self) -> bool:
            raise OSError("away")

        def close(self) -> None: ...

    monkeypatch.setattr(feed_module, "EVERY_S", 0.001)
    feed = Feed(Away(), None)  # type: ignore[arg-type]

    async def one() -> None:
        with pytest.raises(OSError, match="away"):
            await feed.read(0, 10, 1.0)

    async def all_of_them() -> None:
        for _ in range(100):
            await one()

    found = await objects_in_cycles(all_of_them)
    assert found.total() < FEW * 100, found.most_common(10)


async def test_the_count_notices_a_cycle() -> None:
    """The broken twin: a future fails with an exception, and the frame that awaits it also refers to it."""

    async def one() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OSError("away"))
        with pytest.raises(OSError, match="away"):
            await future

    async def all_of_them() -> None:
        for _ in range(100):
            await one()

    found = await objects_in_cycles(all_of_them)
    assert found["Future"] >= 99
