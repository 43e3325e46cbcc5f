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
"""Maximum share of CPU time for polling. It applies to expensive conditions, such as one that reads all processes."""


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
    """Wait for the time after which a service has asked the client to send the request again."""
    await asyncio.sleep(seconds)
