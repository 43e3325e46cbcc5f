"""Background job of the account service that replaces MACs of an earlier layout by MACs of the current layout."""

from typing import Final

import asyncpg

from fundledger.jobs.job import Job, Lease, Ran
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.directory import Directory
from fundledger.ledger.store.sweep import Sweep
from fundledger.ratelimit.pacer import Pacer

MAC_SWEEP: Final = "mac_sweep"
EVERY_S: Final = 60.0
ALARM_S: Final = 600.0
ROUNDS_PER_S: Final = 10
"""Maximum number of rounds per second. The limit leaves capacity for payments while a large ledger is swept."""


class Sweeper:
    """The job `mac_sweep`. A round is one transaction. So concurrent runs are safe, and a run may stop at any time."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", directory: Directory, layout: Layout) -> None:
        self._pool = pool
        self._sweep = Sweep(directory, layout)
        self._pacer = Pacer(ROUNDS_PER_S)

    def job(self) -> Job:
        return Job(MAC_SWEEP, self.run, EVERY_S, alarm_after_s=ALARM_S, ended=self._sweep.begin)

    async def run(self, lease: Lease) -> Ran:
        """Run one round. Raises LeaseLost, ChainBroken, KeyFault, asyncpg errors. Retrying is always safe."""
        await self._pacer.turn()
        async with self._pool.acquire() as connection, connection.transaction():
            await lease.hold(connection)  # type: ignore[arg-type]
            done, more = await self._sweep.step(connection)  # type: ignore[arg-type]
        if not more:
            self._sweep.begin()
        return Ran(done, 0.0, more)
