"""Framework for background jobs: the definition of a job, the lease of a job, and the result of a run."""

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
    """The lease of a job has ended, so another process can already be running the job. The caller must not commit
    uncommitted work.
    """


class Ran(msgspec.Struct, frozen=True):
    """The result of a run. `done`: the number of items that the run processed. `lag_s`: the seconds for which the
    oldest remaining item has waited. `more`: more items are due, so the next run follows immediately.
    """

    done: int = 0
    lag_s: float = 0.0
    more: bool = False


class Lease:
    """The lease of a background job. `fence`: the fencing token, which grows with each change of the lease owner.
    `until`: the monotonic time at which the lease ends.
    """

    def __init__(self, name: str, fence: int, until: float) -> None:
        self.name = name
        self.fence = fence
        self.until = until
        self.lost = False

    def check(self) -> None:
        """Raise LeaseLost if the lease has ended. Call this before an irreversible effect outside the database."""
        if self.lost or time.monotonic() >= self.until:
            raise LeaseLost(f"{self.name}: the lease has ended")

    async def hold(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Lock the lease until the transaction ends, so that no other process can take the lease. Call this in a short
        transaction, before the transaction writes.

        Raises LeaseLost if the lease has ended or has another owner.
        """
        self.check()
        if await connection.fetchval(SQL["standing"], self.name, self.fence) is None:
            self.lost = True
            raise LeaseLost(f"{self.name}: the lease was lost")


class Job(msgspec.Struct, frozen=True):
    """A background job. `run` does the pending work once. The runner calls `run` every `every_s` seconds, and
    immediately after a run that returned `more`.

    `run` may be cancelled at any await. Another process may start `run` before it has ended in this process. So the
    effects of `run` have to be idempotent, and `run` has to call `Lease.hold` before it writes.

    `lease_s`: seconds from the last renewal of a lease to its end. `alarm_after_s`: seconds without a successful run
    after which the job is overdue. `ended`: called each time the job has ended in this process.
    """

    name: str
    run: Callable[[Lease], Awaitable[Ran]]
    every_s: float
    lease_s: float = LEASE_S
    alarm_after_s: float = ALARM_AFTER_S
    ended: Callable[[], None] | None = None
