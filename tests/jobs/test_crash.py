"""Crashes of Postgres and job leases: the renewal of a lease may be lost, but not its fencing token."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.host.postgres.server import EmbeddedPostgres
from fundledger.fund.store.migrate import migrate
from fundledger.jobs.job import SQL
from tests.support.leases import Pool, take_lease, writes
from tests.support.running import short_folder
from tests.support.waiting import eventually


class Crashing(EmbeddedPostgres):
    """A server whose log, after `hold_log`, reaches the disk only by a synchronous commit."""

    async def hold_log(self, pool: Pool) -> None:
        """Suspend the server processes that flush the log without a commit."""
        flushing = "SELECT pid FROM pg_stat_activity WHERE backend_type IN ('walwriter', 'checkpointer')"
        self.flushing = [row["pid"] for row in await pool.fetch(flushing)]
        assert len(self.flushing) == 2
        for pid in self.flushing:
            os.kill(pid, signal.SIGSTOP)

    async def crash(self) -> None:
        """Kill the server and the suspended processes, and start it again."""
        for pid in self.flushing:
            os.kill(pid, signal.SIGKILL)
        await self._end(signal.SIGKILL)
        await self.start()


@pytest.fixture
async def server() -> AsyncIterator[Crashing]:
    folder: Path = short_folder()
    server = Crashing(folder, memory_mb=128, fund=True)
    try:
        await server.start()
        yield server
        await server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def careless(server: Crashing) -> AbstractAsyncContextManager[Pool]:
    """Open a pool whose commits do not wait for the disk, unless a query requires it."""
    return asyncpg.create_pool(server.fund_dsn, min_size=1, max_size=2, server_settings={"synchronous_commit": "off"})


async def test_a_crash_loses_a_renewal_and_no_fencing_token(server: Crashing) -> None:
    async with careless(server) as pool:
        async with pool.acquire() as connection:
            await migrate(connection)
        await pool.execute("CREATE TABLE public.written (fence bigint)")
        await pool.execute("CHECKPOINT")
        await server.hold_log(pool)
        first = await take_lease(pool, "work", "first", lease_s=1.0)
        renewal = [["work"], [first.fence], [600.0], *([[0]] * 4), [None], [None], [None]]
        assert len(await pool.fetch(SQL["beat"], *renewal)) == 1
        assert await writes(pool, first)
        pool.terminate()
    await server.crash()
    async with careless(server) as pool:
        assert await pool.fetchval("SELECT count(*) FROM public.written") == 0, "it lost what followed"
        await pool.execute(SQL["know"], ["work"], [60.0])
        ((_, fence),) = await eventually(lambda: pool.fetch(SQL["take"], ["work"], [600.0], "next"), "the lease ends")
        assert fence == first.fence + 1
        assert await writes(pool, first) is False, "it takes its lease for renewed"
        assert await pool.fetchval("SELECT count(*) FROM public.written") == 0
