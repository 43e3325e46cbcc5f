"""Framework for background jobs: a single run of a job, which an operator requests. The run is under
the job's lease.
"""

import asyncio

import asyncpg
import msgspec

from fundledger.jobs.job import LEASE_S, Job, Lease, LeaseLost, Ran
from fundledger.jobs.runner import JobRunner, to_its_end


class Taken(msgspec.Struct, frozen=True):
    """The result of `run_once` if another process has the lease. `holder` is the lease owner."""

    holder: str | None


async def run_once(pool: "asyncpg.Pool[asyncpg.Record]", job: Job, holder: str) -> Ran | Taken:
    """Take the lease of a job, run the job once, and release the lease. Raises LeaseLost, and what the run and asyncpg
    raise.

    May be repeated. A cancellation releases the lease. A lease shorter than LEASE_S is extended to LEASE_S, because the
    run fails if the lease ends before the run.
    """
    first: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()

    async def run(lease: Lease) -> Ran:
        if first.done():
            await asyncio.Event().wait()
        try:
            ran = await job.run(lease)
        except BaseException as error:
            if not first.done():
                ended = LeaseLost(f"{job.name}: the lease has ended")
                first.set_exception(ended if isinstance(error, asyncio.CancelledError) else error)
            raise
        if not first.done():
            first.set_result(ran)
        return ran

    lease_s = max(job.lease_s, LEASE_S)
    runner = JobRunner(pool, [msgspec.structs.replace(job, run=run, lease_s=lease_s)], holder, retires=False)
    running: asyncio.Task[None] | None = None
    try:
        await to_its_end(runner.beat())
        if not runner.holds():
            return Taken(next(one.holder for one in runner.watch.now() if one.name == job.name))
        running = asyncio.create_task(runner.run())
        return await first
    finally:
        first.cancel()
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await runner.end()
