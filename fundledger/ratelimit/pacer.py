"""Rate pacing of background work, such as jobs, optional reads and outgoing calls. Requests never wait for a pacer."""

import asyncio
from typing import Final

from aiolimiter import AsyncLimiter

WAITERS_MAX: Final = 64
TURN_S: Final = 5.0


class TooMuch(Exception):
    """The wait queue is full, or the wait timed out. The work was not begun."""


class Pacer:
    """Pacer that grants `per_second` turns a second, evenly spaced and without bursts.

    At most `waiters_max` calls wait for a turn, each for at most `turn_s`. This class adds both limits to aiolimiter,
    which has neither. Every turn has the size 1, because aiolimiter serves small requests before large ones.
    """

    def __init__(self, per_second: float, waiters_max: int = WAITERS_MAX, turn_s: float = TURN_S) -> None:
        self._limiter = AsyncLimiter(1, 1 / per_second)
        self._next = asyncio.Lock()
        self._waiters_max = waiters_max
        self._turn_s = turn_s
        self.waiting = 0

    async def turn(self) -> None:
        """Wait for a turn. Raises TooMuch. If the caller is cancelled, its place in the queue becomes free."""
        if self.waiting >= self._waiters_max:
            raise TooMuch(f"{self.waiting} are waiting")
        self.waiting += 1
        try:
            # The lock admits one waiter at a time, in order of arrival. Without the lock, aiolimiter wakes several
            # waiters in any order when its timer is late.
            async with asyncio.timeout(self._turn_s), self._next:
                await self._limiter.acquire()
        except TimeoutError:
            raise TooMuch(f"no turn within {self._turn_s} s") from None
        finally:
            self.waiting -= 1
