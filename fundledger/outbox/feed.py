"""Feed of outbox events. Each reader continues from its own position and misses no event.

Long polls do not query the database individually: while requests wait, one task of the process checks for new events
every EVERY_S seconds.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import msgspec

from fundledger.faults import Unavailable
from fundledger.outbox.watermark import VisibilityWatermark

LIMIT_MAX: Final = 1000
WAIT_MAX_S: Final = 30.0
WAITERS_MAX: Final = 1024
WAITERS_OF_CALLER_MAX: Final = 128
EVERY_S: Final = 0.05
IMPATIENT_S: Final = 2.0
"""The maximum time for which a request without `wait` waits until the last readable position is known."""
AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


class TooManyWait(Unavailable):
    """Too many requests wait for events, so the new request is rejected. A retry is safe."""


class CallerWaitsTooMuch(TooManyWait):
    """Too many requests of one caller wait for events. Requests of other callers are still accepted."""


class Event(msgspec.Struct, frozen=True):
    """An event. `seq` is the position of the event in its feed: a reader continues after this position. `id` is unique
    and permanent, so that consumers can detect duplicates. `about` is the merchant or the shard of the event. `body` is
    the event as JSON. `at` is in seconds since 1970. `for_each` returns the merchants that get the event by webhook,
    each with a body of its own; None: only `about` gets it.
    """

    seq: int
    id: str
    type: str
    about: str
    at: float
    body: bytes
    for_each: Callable[[], list[tuple[str, bytes]]] | None = None


Read = Callable[[int, int, int], Awaitable[list[Event]]]
"""`read(after, safe, limit)` returns the events after position `after`, in order. It reads rows up to
the seq `safe`.
"""


class _Waiter:
    __slots__ = ("after", "came", "done", "impatient")

    def __init__(self, after: int, done: "asyncio.Future[None]", impatient: bool) -> None:
        self.after = after
        self.done = done
        self.impatient = impatient
        self.came = time.monotonic()


class Feed:
    """The feed of a process. A row of the outbox may contain several events. `scale`: the first event of the row with
    seq `n` has the seq `n * scale`. With `scale` 1, each row contains one event.
    """

    def __init__(self, horizon: VisibilityWatermark, read: Read, scale: int = 1) -> None:
        self._horizon = horizon
        self._read = read
        self._scale = scale
        self._waiters: list[_Waiter] = []
        self._of_callers: dict[str, int] = {}
        self._watching: asyncio.Task[None] | None = None
        self._stopped = False

    async def read(self, after: int, limit: int, wait_s: float, caller: str = "") -> tuple[list[Event], int]:
        """Return `(events, next after)`: at most `limit` events after the position `after`, and the position from which
        the next read continues. If there is no event yet, wait up to `wait_s` for one. A repeated read with the same
        `after` returns the same events.

        `caller`: the module that waits. The number of concurrent waits of a module is limited. Raises TooManyWait,
        CallerWaitsTooMuch, and what asyncpg raises. A cancellation loses no event.
        """
        give_up_at = time.monotonic() + max(wait_s, IMPATIENT_S if wait_s <= 0 else 0.0)
        while True:
            if self._top() <= after:
                await self._wait(after, give_up_at, impatient=wait_s <= 0, caller=caller)
            top = self._top()
            if top > after:
                events = await self._read(after, (top + 1) // self._scale - 1, limit)
                if events:
                    return events, events[-1].seq
                # A seq that was drawn and rolled back has no row, so the next read skips such seqs.
                after = top
            if time.monotonic() >= give_up_at or self._stopped or wait_s <= 0:
                return [], after

    async def top(self, after: int) -> int:
        """Return the last readable position, or `after` if no later position is readable. No event is read. Raises what
        `read` raises.
        """
        if self._top() <= after:
            await self._wait(after, time.monotonic() + IMPATIENT_S, impatient=True)
        return max(after, self._top())

    def stop(self) -> None:
        """End all waiting reads: each returns no events. Later reads do not wait."""
        self._stopped = True
        for waiter in self._waiters:
            _wake(waiter)

    async def close(self) -> None:
        self.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._horizon.close()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def lag_s(self) -> float:
        """The seconds for which a seq that was drawn has been unreadable: see `VisibilityWatermark.lag_s`."""
        return self._horizon.lag_s

    def _top(self) -> int:
        """Return the last seq that is safe to read."""
        return (self._horizon.safe + 1) * self._scale - 1

    async def _wait(self, after: int, give_up_at: float, *, impatient: bool, caller: str = "") -> None:
        if self._stopped:
            return
        of_caller = self._of_callers.get(caller, 0)
        if caller and of_caller >= WAITERS_OF_CALLER_MAX:
            raise CallerWaitsTooMuch(f"{of_caller} requests of this caller already wait for events")
        if len(self._waiters) >= WAITERS_MAX:
            raise TooManyWait(f"{len(self._waiters)} requests already wait for events")
        waiter = _Waiter(after, asyncio.get_running_loop().create_future(), impatient)
        self._waiters.append(waiter)
        self._of_callers[caller] = of_caller + 1
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            async with asyncio.timeout(give_up_at - time.monotonic()):
                await waiter.done
        except TimeoutError:
            pass
        finally:
            self._waiters.remove(waiter)
            # This breaks a reference cycle: the exception in the waiter refers to this frame.
            del waiter
            self._of_callers[caller] -= 1
            if not self._of_callers[caller]:
                del self._of_callers[caller]

    async def _watch(self) -> None:
        while self._waiters:
            began = time.monotonic()
            try:
                complete = await self._horizon.look()
            except AWAY as error:
                for waiter in self._waiters:
                    if not waiter.done.done():
                        # Each waiter gets a new exception: the traceback of `error` would refer to this frame and the
                        # waiter.
                        waiter.done.set_exception(ConnectionError(f"{type(error).__name__}: {error}"))
                return
            top = self._top()
            for waiter in self._waiters:
                if top > waiter.after or (complete and waiter.impatient and waiter.came <= began):
                    _wake(waiter)
            await asyncio.sleep(EVERY_S)


def _wake(waiter: _Waiter) -> None:
    if not waiter.done.done():
        waiter.done.set_result(None)
