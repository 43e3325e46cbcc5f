"""Waits for another process: a condition is polled until it holds or a deadline passes.

No other place of the tests sleeps to wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
EVERY_S = 0.02
SHARE = 0.1
"""The most of the processor that a condition takes which reads every process of the machine, say."""


class NeverHappened(AssertionError):
    """The awaited condition did not hold in time."""


async def eventually(condition: Callable[[], T | Awaitable[T]], what: str, within_s: float = 20.0) -> T:
    """Return the first true value of `condition`, which may be a coroutine function."""
    give_up_at = time.monotonic() + within_s
    while True:
        began = time.thread_time()
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise NeverHappened(f"{what}: not within {within_s} s")
        await asyncio.sleep(max(EVERY_S, (time.thread_time() - began) / SHARE))


async def as_asked(seconds: float) -> None:
    """Wait as long as a service asks a client to, before the same request is sent again."""
    await asyncio.sleep(seconds)
