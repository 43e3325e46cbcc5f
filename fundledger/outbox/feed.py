"""Events for whoever asks from where he stopped: nothing is left out, whoever was away, and nobody polls the database.

While somebody waits, one task of the process looks every EVERY_S whether there is more; when nobody waits, it ends.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import msgspec

from fundledger.outbox.horizon import Horizon

LIMIT_MAX: Final = 1000
WAIT_MAX_S: Final = 30.0
WAITERS_MAX: Final = 1024
WAITERS_OF_CALLER_MAX: Final = 128
EVERY_S: Final = 0.05
IMPATIENT_S: Final = 2.0
"""How long somebody who would not wait may have to, until it is known what can be read."""
AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
_log = logging.getLogger(__name__)


def page(events: "list[Event]", after: int) -> bytes:
    """As `GET /v1/events` answers it."""
    return b'{"events":[' + b",".join([event.body for event in events]) + b'],"next":%d}' % after


class TooManyWait(TimeoutError):
    """As many wait for events as may: this one would not be answered in time. The same may be asked again."""


class CallerWaitsTooMuch(TooManyWait):
    """As many wait for events for one caller as may. Others are not concerned."""


class Event(msgspec.Struct, frozen=True):
    """`seq` orders the events of a feed, and says where to go on; `id` is its own for ever: whoever gets it twice knows
    by that. `about` is whose it is: a merchant, a shard. `body` is all of it as JSON. `at` in seconds since 1970.
    """

    seq: int
    id: str
    type: str
    about: str
    at: float
    body: bytes


Read = Callable[[int, int, int], Awaitable[list[Event]]]
"""`read(after, safe, limit)`: the events behind `after`, in order, of rows up to `safe`."""


class _Waiter:
    __slots__ = ("after", "came", "done", "impatient")

    def __init__(self, after: int, done: "asyncio.Future[None]", impatient: bool) -> None:
        self.after = after
        self.done = done
        self.impatient = impatient
        self.came = time.monotonic()


class Feed:
    """One a process. `scale`: a row's seq times this is before or at the first of its events (1: a row is an event)."""

    def __init__(self, horizon: Horizon, read: Read, scale: int = 1) -> None:
        self._horizon = horizon
        self._read = read
        self._scale = scale
        self._waiters: list[_Waiter] = []
        self._of_callers: dict[str, int] = {}
        self._watching: asyncio.Task[None] | None = None
        self._stopped = False

    async def read(self, after: int, limit: int, wait_s: float, caller: str = "") -> tuple[list[Event], int]:
        """The next events behind `after`, at most `limit`, and the `after` to go on with. If there is none: waits for
        one, up to `wait_s`. Reading again with the same `after` answers the same.

        `caller`: the module that waits, which has a share of those that may. Raises TooManyWait, CallerWaitsTooMuch,
        and what asyncpg raises. Cancelling loses nothing.
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
                # A seq that was drawn and rolled back has no row: who asks again need not look there.
                after = top
            if time.monotonic() >= give_up_at or self._stopped or wait_s <= 0:
                return [], after

    async def top(self, after: int) -> int:
        """How far events can be read now, without reading them; `after`, if none is behind it. Raises as `read`."""
        if self._top() <= after:
            await self._wait(after, time.monotonic() + IMPATIENT_S, impatient=True)
        return max(after, self._top())

    async def page(self, after: int, limit: int, wait_s: float, caller: str = "") -> bytes:
        """As `read`, and as `GET /v1/events` answers it."""
        return page(*await self.read(after, limit, wait_s, caller))

    def stop(self) -> None:
        """Let all go that wait: what they asked is answered with nothing. Nobody waits from now on."""
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
        """For how long, in seconds, something that was drawn cannot be read yet; see `Horizon.lag_s`."""
        return self._horizon.lag_s

    def _top(self) -> int:
        """No event behind this one is safe to be read yet."""
        return (self._horizon.safe + 1) * self._scale - 1

    async def _wait(self, after: int, give_up_at: float, *, impatient: bool, caller: str = "") -> None:
        if self._stopped:
            return
        of_caller = self._of_callers.get(caller, 0)
        if caller and of_caller >= WAITERS_OF_CALLER_MAX:
            raise CallerWaitsTooMuch(f"{of_caller} requests of this caller wait for events")
        if len(self._waiters) >= WAITERS_MAX:
            raise TooManyWait(f"{len(self._waiters)} wait for events")
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
            # Its exception refers to this frame.
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
                        # A new one for each, without a traceback: that refers to this frame, and so to the waiter.
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
