"""Background jobs: the definition of a job, its lease, and the result of a run."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import msgspec

from fundledger.database.statements import load

SQL: Final = load("fundledger.jobs")
LEASE_S: Final = 5.0
ALARM_AFTER_S: Final = 60.0


class LeaseLost(Exception):
    """The lease has ended, and another process may run the job. Uncommitted work must not be committed."""


class Ran(msgspec.Struct, frozen=True):
    """The result of a run: number of items `done`, wait of the oldest remaining item (`lag_s`), and whether there is
    `more` to do, so that the next run follows immediately.
    """

    done: int = 0
    lag_s: float = 0.0
    more: bool = False


class Lease:
    """A lease of a background job. `fence`: the fencing token, which grows with each lease owner. `until`: monotonic
    time at which the lease ends.
    """

    def __init__(self, name: str, fence: int, until: float) -> None:
        self.name = name
        self.fence = fence
        self.until = until
        self.lost = False

    def check(self) -> None:
        """Raise LeaseLost if the lease has ended. Call before an irreversible effect outside the database."""
        if self.lost or time.monotonic() >= self.until:
            raise LeaseLost(f"{self.name}: the lease has ended")

    async def hold(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Lock the lease against other owners until the transaction ends. Call in a short transaction, before it
        writes.

        Raises LeaseLost.
        """
        self.check()
        if await connection.fetchval(SQL["standing"], self.name, self.fence) is None:
            self.lost = True
            raise LeaseLost(f"{self.name}: the lease was lost")


class Job(msgspec.Struct, frozen=True):
    """A background job. `run` does the pending work once. It is called every `every_s`, and immediately after a run
    that returned `more`.

    `run` may be cancelled at any await. Another process may start it before it has ended here. So its effects have to
    be idempotent, and it has to call `Lease.hold` before it writes. `lease_s`: a lease ends this long after its last
    renewal. `alarm_after_s`: the job is overdue after this time without a successful run. `ended` is called each time
    the job has ended in this process.
    """

    name: str
    run: Callable[[Lease], Awaitable[Ran]]
    every_s: float
    lease_s: float = LEASE_S
    alarm_after_s: float = ALARM_AFTER_S
    ended: Callable[[], None] | None = None
