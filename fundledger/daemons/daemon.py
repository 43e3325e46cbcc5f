"""A daemon: work that comes again and again, and that one process at a time does."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import msgspec

from fundledger.database.statements import load

SQL: Final = load("fundledger.daemons")
ALARM_AFTER_S: Final = 60.0


class LeaseLost(Exception):
    """Somebody else may be doing this by now: whatever is not committed must not be."""


class Ran(msgspec.Struct, frozen=True):
    """What a turn came to: how many things were `done`, for how long the oldest that is left has waited (s), and
    whether there is `more` to be done at once.
    """

    done: int = 0
    lag_s: float = 0.0
    more: bool = False


class Turn:
    """The right to do a daemon's work, for as long as the lease stands. `fence` grows with each holder."""

    def __init__(self, name: str, fence: int, until: float) -> None:
        self.name = name
        self.fence = fence
        self.until = until
        self.lost = False

    def check(self) -> None:
        """Before something that cannot be undone, outside of our database. Raises LeaseLost."""
        if self.lost or time.monotonic() >= self.until:
            raise LeaseLost(f"{self.name}: the lease has ended")

    async def hold(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """In a transaction, before it writes: nobody else can take the lease until it has ended. Keep it short.

        Raises LeaseLost. Locks the lease against being taken.
        """
        self.check()
        if await connection.fetchval(SQL["standing"], self.name, self.fence) is None:
            self.lost = True
            raise LeaseLost(f"{self.name}: the lease was lost")


class Daemon(msgspec.Struct, frozen=True):
    """`run` does what there is to do, once; it is called every `every_s`, and at once when there is more.

    It may be cancelled at any await, and may run in another process although it has not ended here: what it does has to
    be safe to be done twice, and what it writes is written after `Turn.hold`. A lease ends `lease_s` after it was
    renewed last. Without a good run for `alarm_after_s` the daemon is overdue. `ended` is called when the lease has
    ended, however it did.
    """

    name: str
    run: Callable[[Turn], Awaitable[Ran]]
    every_s: float
    lease_s: float = 5.0
    alarm_after_s: float = ALARM_AFTER_S
    ended: Callable[[], None] | None = None
