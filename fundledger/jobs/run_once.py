"""A single run of a background job on request of an operator, under the job's lease."""

import asyncio

import asyncpg
import msgspec

from fundledger.jobs.job import RENEWALS, SQL, Job, Lease, Ran
from fundledger.jobs.tally import Tally
from fundledger.jobs.watch import standings


class Taken(msgspec.Struct, frozen=True):
    """The result if another process has the lease; `holder` is the lease owner."""

    holder: str | None


async def run_once(pool: "asyncpg.Pool[asyncpg.Record]", job: Job, holder: str) -> Ran | Taken:
    """Take the lease, run the job once, release the lease. Raises LeaseLost, and what the run and asyncpg raise.

    May be repeated. Cancelling releases the lease.
    """
    await pool.execute(SQL["know"], [job.name], [job.alarm_after_s])
    asked_at = asyncio.get_running_loop().time()
    rows = await pool.fetch(SQL["take"], [job.name], [job.lease_s], holder)
    if not rows:
        found = [one for one in standings(await pool.fetch(SQL["look"])) if one.name == job.name]
        return Taken(found[0].holder)
    lease, tally = Lease(job.name, rows[0]["fence"], asked_at + job.lease_s), Tally(job.name)
    tally.started()
    work = asyncio.ensure_future(job.run(lease))
    renewing = asyncio.create_task(_renew(pool, job, lease, work))
    try:
        ran = await work
    except BaseException as error:
        tally.failed(error)
        raise
    else:
        tally.ran(ran)
        return ran
    finally:
        renewing.cancel()
        if job.ended is not None:
            job.ended()
        row, _ = tally.row()
        columns = [[value] for value in msgspec.structs.astuple(row)]
        await pool.fetch(SQL["beat"], [job.name], [lease.fence], [job.lease_s], *columns)
        await pool.execute(SQL["give_back"], [job.name], [lease.fence])


async def _renew(pool: "asyncpg.Pool[asyncpg.Record]", job: Job, lease: Lease, work: "asyncio.Future[Ran]") -> None:
    nothing = [[value] for value in msgspec.structs.astuple(Tally(job.name).row()[0])]
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(job.lease_s / RENEWALS)
        asked_at = loop.time()
        try:
            async with asyncio.timeout_at(lease.until):
                stands = await pool.fetch(SQL["beat"], [job.name], [lease.fence], [job.lease_s], *nothing)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if asked_at < lease.until:
                continue
            stands = []
        if not stands:
            lease.lost = True
            work.cancel()
            return
        lease.until = asked_at + job.lease_s
