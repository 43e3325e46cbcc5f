"""Rate pacing of background work: jobs, optional reads, outgoing calls. Not for the admission of requests."""

import asyncio
from typing import Final

from aiolimiter import AsyncLimiter

WAITERS_MAX: Final = 64
TURN_S: Final = 5.0


class TooMuch(Exception):
    """The wait queue is full, or the wait timed out. The work was not begun."""


class Pacer:
    """Pacer of `per_second` evenly spaced turns, without bursts. At most `waiters_max` wait, each for at most `turn_s`.

    aiolimiter has neither a cap nor a timeout, and serves small requests before large ones. Every turn therefore has
    the size 1.
    """

    def __init__(self, per_second: float, waiters_max: int = WAITERS_MAX, turn_s: float = TURN_S) -> None:
        self._limiter = AsyncLimiter(1, 1 / per_second)
        self._next = asyncio.Lock()
        self._waiters_max = waiters_max
        self._turn_s = turn_s
        self.waiting = 0

    async def turn(self) -> None:
        """Wait for a turn. Raises TooMuch. Cancelling releases the place in the queue."""
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
