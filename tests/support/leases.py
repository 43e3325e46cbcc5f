"""Job leases for tests: take a lease, let all expire, write under a lease, and delay the answer to a query."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg

from fundledger.jobs.job import SQL, Lease, LeaseLost
from fundledger.jobs.runner import JobRunner

Pool = asyncpg.Pool


async def take_lease(pool: Pool, name: str, holder: str = "test", lease_s: float = 60.0) -> Lease:
    """Take the lease of a job that no process has. In this process the lease never ends by time."""
    await pool.execute(SQL["know"], [name], [60.0])
    ((_, fence),) = await pool.fetch(SQL["take"], [name], [lease_s], holder)
    return Lease(name, fence, math.inf)


async def expire_leases(pool: Pool) -> None:
    await pool.execute("UPDATE daemons.leases SET expires_at = clock_timestamp()")


async def writes(pool: Pool, lease: Lease) -> bool:
    """Insert into `public.written` under the lease. Return False if it was lost."""
    try:
        async with pool.acquire() as connection, connection.transaction():
            await lease.hold(connection)
            await connection.execute("INSERT INTO public.written (fence) VALUES ($1)", lease.fence)
    except LeaseLost:
        return False
    return True


@contextlib.asynccontextmanager
async def running(*runners: JobRunner) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Late:
    """A pool that delays the result of one query until `let_go` is set. The query itself is executed immediately."""

    def __init__(self, pool: Pool, statement: str, after: Callable[[], bool] = lambda: True) -> None:
        self._pool = pool
        self._statement = statement
        self._after = after
        self.executed = asyncio.Event()
        self.let_go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    async def fetch(self, statement: str, *arguments: object) -> Any:
        rows = await self._pool.fetch(statement, *arguments)
        if statement == self._statement and self._after():
            self.executed.set()
            await self.let_go.wait()
        return rows
