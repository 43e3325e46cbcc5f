"""A single run of a background job on request of an operator, under the job's lease."""

import asyncio
from typing import Final

import asyncpg
import msgspec

from fundledger.daemons.daemon import SQL, Daemon, Ran, Turn
from fundledger.daemons.tally import Tally
from fundledger.daemons.watch import standings

RENEWS_EACH: Final = 3
"""Renewals of a lease within its duration."""


class Taken(msgspec.Struct, frozen=True):
    """The result if another process has the lease; `holder` is the lease owner."""

    holder: str | None


async def run_once(pool: "asyncpg.Pool[asyncpg.Record]", daemon: Daemon, holder: str) -> Ran | Taken:
    """Take the lease, run the job once, release the lease. Raises LeaseLost, and what the run and asyncpg raise.

    May be repeated. Cancelling releases the lease.
    """
    await pool.execute(SQL["know"], [daemon.name], [daemon.alarm_after_s])
    asked_at = asyncio.get_running_loop().time()
    rows = await pool.fetch(SQL["take"], [daemon.name], [daemon.lease_s], holder)
    if not rows:
        found = [one for one in standings(await pool.fetch(SQL["look"])) if one.name == daemon.name]
        return Taken(found[0].holder)
    turn, tally = Turn(daemon.name, rows[0]["fence"], asked_at + daemon.lease_s), Tally(daemon.name)
    tally.started()
    work = asyncio.ensure_future(daemon.run(turn))
    renewing = asyncio.create_task(_renew(pool, daemon, turn, work))
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
        if daemon.ended is not None:
            daemon.ended()
        row, _ = tally.row()
        columns = [[value] for value in msgspec.structs.astuple(row)]
        await pool.fetch(SQL["beat"], [daemon.name], [turn.fence], [daemon.lease_s], *columns)
        await pool.execute(SQL["give_back"], [daemon.name], [turn.fence])


async def _renew(pool: "asyncpg.Pool[asyncpg.Record]", daemon: Daemon, turn: Turn, work: "asyncio.Future[Ran]") -> None:
    nothing = [[value] for value in msgspec.structs.astuple(Tally(daemon.name).row()[0])]
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(daemon.lease_s / RENEWS_EACH)
        asked_at = loop.time()
        try:
            async with asyncio.timeout_at(turn.until):
                stands = await pool.fetch(SQL["beat"], [daemon.name], [turn.fence], [daemon.lease_s], *nothing)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if asked_at < turn.until:
                continue
            stands = []
        if not stands:
            turn.lost = True
            work.cancel()
            return
        turn.until = asked_at + daemon.lease_s
