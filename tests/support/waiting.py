"""Waiting for another process: a condition is asked again until it holds, and a deadline ends it.

The one place of the tests that sleeps.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
EVERY_S = 0.02


class NeverHappened(AssertionError):
    """What was waited for did not come in time."""


async def eventually(condition: Callable[[], T | Awaitable[T]], what: str, within_s: float = 20.0) -> T:
    """The first true value of `condition`, which may be a coroutine function."""
    give_up_at = time.monotonic() + within_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise NeverHappened(f"{what}: not within {within_s} s")
        await asyncio.sleep(EVERY_S)


async def as_asked(seconds: float) -> None:
    """Wait as long as a service asks a client to, before the same request is sent again."""
    await asyncio.sleep(seconds)
