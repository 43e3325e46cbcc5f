"""The daemon that brings MACs of an earlier layout to the one that is written now."""

from typing import Final

import asyncpg

from fundledger.daemons.daemon import Daemon, Ran, Turn
from fundledger.ledger.accounts import Layout
from fundledger.ledger.directory import Directory
from fundledger.ledger.sweep import Sweep
from fundledger.ratelimit.pacer import Pacer

MAC_SWEEP: Final = "mac_sweep"
EVERY_S: Final = 60.0
ALARM_S: Final = 600.0
ROUNDS_PER_S: Final = 10
"""Bringing over a large ledger does not crowd out payments."""


class Sweeper:
    """Safe in any number, and to be stopped at any moment: each round is one transaction."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", directory: Directory, layout: Layout) -> None:
        self._pool = pool
        self._sweep = Sweep(directory, layout)
        self._pacer = Pacer(ROUNDS_PER_S)

    def daemon(self) -> Daemon:
        return Daemon(MAC_SWEEP, self.run, EVERY_S, alarm_after_s=ALARM_S, ended=self._sweep.begin)

    async def run(self, turn: Turn) -> Ran:
        """A round. Raises LeaseLost, ChainBroken, KeyFault, what asyncpg raises; it may always be done again."""
        await self._pacer.turn()
        async with self._pool.acquire() as connection, connection.transaction():
            await turn.hold(connection)  # type: ignore[arg-type]
            done, more = await self._sweep.step(connection)  # type: ignore[arg-type]
        if not more:
            self._sweep.begin()
        return Ran(done, 0.0, more)
