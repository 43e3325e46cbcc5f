"""A single run of a background job on request of an operator, under the job's lease."""

import asyncio

import asyncpg
import msgspec

from fundledger.jobs.job import LEASE_S, Job, Lease, LeaseLost, Ran
from fundledger.jobs.runner import JobRunner


class Taken(msgspec.Struct, frozen=True):
    """The result if another process has the lease; `holder` is the lease owner."""

    holder: str | None


async def run_once(pool: "asyncpg.Pool[asyncpg.Record]", job: Job, holder: str) -> Ran | Taken:
    """Take the lease, run the job once, release the lease. Raises LeaseLost, and what the run and asyncpg raise.

    May be repeated. Cancelling releases the lease. A short lease is extended: losing it would fail the run.
    """
    first: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()

    async def run(lease: Lease) -> Ran:
        if first.done():
            await asyncio.Event().wait()
        try:
            ran = await job.run(lease)
        except asyncio.CancelledError:
            if not first.cancelled():
                first.set_exception(LeaseLost(f"{job.name}: the lease has ended"))
            raise
        except Exception as error:
            first.set_exception(error)
            raise
        first.set_result(ran)
        return ran

    lease_s = max(job.lease_s, LEASE_S)
    runner = JobRunner(pool, [msgspec.structs.replace(job, run=run, lease_s=lease_s)], holder, retires=False)
    await runner.beat()
    if not runner.holds():
        return Taken(next(one.holder for one in runner.watch.now() if one.name == job.name))
    running = asyncio.create_task(runner.run())
    try:
        # A task that is cancelled before it has begun would not release the lease.
        await asyncio.sleep(0)
        return await first
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
