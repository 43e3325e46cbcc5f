"""Paces work that nobody outside waits for: daemons, reads that may be left out, calls to others. Never admission."""

import asyncio
from typing import Final

from aiolimiter import AsyncLimiter

WAITERS_MAX: Final = 64
TURN_S: Final = 5.0


class TooMuch(Exception):
    """As many wait as may wait, or this one waited for too long: its work was not begun."""


class Pacer:
    """So many turns a second, evenly, without a burst. At most `waiters_max` wait, for at most `turn_s` each.

    aiolimiter has no cap and no time-out, and serves the small before the large; so every turn is one.
    """

    def __init__(self, per_second: float, waiters_max: int = WAITERS_MAX, turn_s: float = TURN_S) -> None:
        self._limiter = AsyncLimiter(1, 1 / per_second)
        self._next = asyncio.Lock()
        self._waiters_max = waiters_max
        self._turn_s = turn_s
        self.waiting = 0

    async def turn(self) -> None:
        """Wait for a turn. Raises TooMuch. Cancelling gives it up."""
        if self.waiting >= self._waiters_max:
            raise TooMuch(f"{self.waiting} are waiting")
        self.waiting += 1
        try:
            # One by one, in the order of their coming: aiolimiter wakes several when its timer is late, in any order.
            async with asyncio.timeout(self._turn_s), self._next:
                await self._limiter.acquire()
        except TimeoutError:
            raise TooMuch(f"no turn within {self._turn_s} s") from None
        finally:
            self.waiting -= 1
