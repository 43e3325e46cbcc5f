"""Runs daemons: each by one of N processes, which holds its lease; and watches all that there are.

Once a second a roster renews the leases that it holds and records what was run under them, in one statement; takes
those that nobody holds; and looks at all. A lease ends by the clock of the database. The holder counts from before it
asked, by its own monotonic clock, so it stops in time even if the database does not answer: the run is cancelled. What
was paused for longer than that (a stopped process, a frozen machine) finds its lease ended before it writes: each write
stands behind `Turn.hold`, which only the latest fence passes.

After a SIGKILL somebody else begins within `lease_s + BEAT_S`; after a graceful end within BEAT_S.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from fundledger.daemons.daemon import SQL, Daemon, LeaseLost, Turn
from fundledger.daemons.tally import Tally
from fundledger.daemons.watch import Counted, Watch

BEAT_S: Final = 1.0
BEAT_MAX_S: Final = 2.0
"""How long a beat may take; longer than that the database counts as away."""
BACK_OFF_MAX_S: Final = 5.0
AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_log = logging.getLogger(__name__)


class _Held:
    """A lease of this process, and the task that works under it. `until`: when it ends if it is not renewed."""

    def __init__(self, daemon: Daemon, turn: Turn) -> None:
        self.daemon = daemon
        self.turn = turn
        self.task: asyncio.Task[None]
        self.timer: asyncio.TimerHandle | None = None


class Roster:
    """`holder` names this process, and no other one. `tallies` are of those that lead by other means. Cancelling `run`
    gives the leases back.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        daemons: Sequence[Daemon],
        holder: str,
        *,
        led: Sequence[tuple[Tally, float]] = (),
        retires: bool = True,
    ) -> None:
        self.pool = pool
        self._daemons = {daemon.name: daemon for daemon in daemons}
        self._tallies = {name: Tally(name) for name in self._daemons}
        self._led = {tally.name: tally for tally, _ in led}
        self._alarms = {tally.name: alarm_after_s for tally, alarm_after_s in led}
        self._alarms |= {daemon.name: daemon.alarm_after_s for daemon in daemons}
        self._holder = holder
        self._retires = retires
        self._held: dict[str, _Held] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._known = False
        self.watch = Watch()

    async def run(self) -> None:
        """Beat permanently. Cancelling waits for a beat under way, stops what runs and gives the leases back."""
        try:
            while True:
                await self._whole_beat()
                self.watch.tell()
                await asyncio.sleep(BEAT_S * random.uniform(0.8, 1.0))  # noqa: S311 - not all at one moment
        finally:
            await self._end()

    async def _whole_beat(self) -> None:
        """Beat, and log a failure. Cancelling takes effect when the beat has ended, after BEAT_MAX_S at most.

        A beat that is cut off may have recorded its runs, which the last beat would record again; and may have taken a
        lease that would not be given back.
        """
        beat = asyncio.get_running_loop().create_task(self._try_to_beat())
        try:
            await asyncio.shield(beat)
        except asyncio.CancelledError:
            await asyncio.wait([beat])
            raise

    async def _try_to_beat(self) -> None:
        try:
            async with asyncio.timeout(BEAT_MAX_S):
                await self.beat()
        except (*AWAY, TimeoutError) as error:
            _log.warning("the leases of daemons cannot be renewed: %s", error or type(error).__name__)
        except Exception:
            _log.exception("the leases of daemons cannot be renewed")

    async def beat(self) -> None:
        """Renew, record, take, look. Raises what asyncpg raises; what was not renewed ends in time."""
        if not self._known:
            names = list(self._alarms)
            await self.pool.execute(SQL["know"], names, [self._alarms[name] for name in names])
            if self._retires:
                await self.pool.execute(SQL["retire"], names)
            self._known = True
        await self._renew()
        await self._tell()
        await self._take()
        await self.watch.look(self.pool)

    def holds(self) -> list[str]:
        """The names of the daemons that this process runs now."""
        return sorted(self._held)

    def counted(self) -> Counted:
        return self.watch.counted([*self._tallies.values(), *self._led.values()])

    async def _renew(self) -> None:
        held = list(self._held.values())
        if not held:
            return
        sent_at = asyncio.get_running_loop().time()
        rows = [self._tallies[one.daemon.name].row() for one in held]
        leases = [one.daemon.lease_s for one in held]
        fences = [one.turn.fence for one in held]
        names = [one.daemon.name for one in held]
        standing = await self.pool.fetch(SQL["beat"], names, fences, leases, *_columns([row for row, _ in rows]))
        renewed = {row["name"] for row in standing}
        for one, (_, counts) in zip(held, rows, strict=True):
            if one.daemon.name in renewed:
                self._tallies[one.daemon.name].written(counts)
                self._stands_until(one, sent_at + one.daemon.lease_s)
            else:
                self._lose(one, "somebody else may have it")

    async def _tell(self) -> None:
        """Of those that lead by other means."""
        led = [tally for tally in self._led.values() if tally.is_new]
        if led:
            rows = [tally.row() for tally in led]
            names = [tally.name for tally in led]
            await self.pool.execute(SQL["tell"], names, self._holder, 5 * BEAT_S, *_columns([row for row, _ in rows]))
            for tally, (_, counts) in zip(led, rows, strict=True):
                tally.written(counts)

    async def _take(self) -> None:
        ending = {task.get_name() for task in self._ending}
        free = [one for name, one in self._daemons.items() if name not in self._held and name not in ending]
        if not free:
            return
        sent_at = asyncio.get_running_loop().time()
        names, leases = [one.name for one in free], [one.lease_s for one in free]
        for row in await self.pool.fetch(SQL["take"], names, leases, self._holder):
            self._begin(self._daemons[row["name"]], row["fence"], sent_at)

    def _begin(self, daemon: Daemon, fence: int, sent_at: float) -> None:
        _log.info("a daemon runs here", extra={"daemon": daemon.name, "fence": fence})
        held = _Held(daemon, Turn(daemon.name, fence, 0.0))
        self._held[daemon.name] = held
        self._stands_until(held, sent_at + daemon.lease_s)
        held.task = asyncio.get_running_loop().create_task(self._work(held), name=daemon.name)
        held.task.add_done_callback(self._ended)
        self._ending.add(held.task)

    def _stands_until(self, held: _Held, until: float) -> None:
        held.turn.until = until
        if held.timer is not None:
            held.timer.cancel()
        held.timer = asyncio.get_running_loop().call_at(until, self._lose, held, "it could not be renewed")

    def _lose(self, held: _Held, why: str) -> None:
        if held.turn.lost and self._held.get(held.daemon.name) is not held:
            return
        _log.warning("a daemon's lease has ended: %s", why, extra={"daemon": held.daemon.name})
        self._stop(held)

    def _stop(self, held: _Held) -> None:
        held.turn.lost = True
        if held.timer is not None:
            held.timer.cancel()
        if self._held.get(held.daemon.name) is held:
            del self._held[held.daemon.name]
        held.task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        held = self._held.get(task.get_name())
        if held is not None and held.task is task:
            # By a cancellation from within: nobody renews the lease, and the next beat after it may begin again.
            self._stop(held)
        ended = self._daemons[task.get_name()].ended
        if ended is not None:
            ended()

    async def _work(self, held: _Held) -> None:
        """Turn after turn, until the lease ends."""
        daemon, turn, tally = held.daemon, held.turn, self._tallies[held.daemon.name]
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while not turn.lost:
            began = loop.time()
            tally.started()
            try:
                ran = await daemon.run(turn)
            except LeaseLost as lost:
                self._lose(held, str(lost))
                return
            except Exception as error:
                in_a_row += 1
                tally.failed(error)
                extra = {"daemon": daemon.name}
                if isinstance(error, AWAY):
                    _log.warning("a daemon's run failed: %s", error, extra=extra)
                else:
                    _log.exception("a daemon's run failed", extra=extra)
                pause_s = max(daemon.every_s, min(BACK_OFF_MAX_S, 0.25 * 2.0**in_a_row))
            else:
                in_a_row = 0
                tally.ran(ran)
                pause_s = 0.0 if ran.more else max(0.0, daemon.every_s - (loop.time() - began))
            await asyncio.sleep(pause_s)

    async def _end(self) -> None:
        held = list(self._held.values())
        for one in held:
            self._stop(one)
        if self._ending:
            await asyncio.wait(self._ending, timeout=BEAT_MAX_S)
        if not held:
            return
        # Shielded by nothing: whoever cancels twice leaves the leases to end by themselves.
        try:
            async with asyncio.timeout(BEAT_MAX_S):
                names, fences = [one.daemon.name for one in held], [one.turn.fence for one in held]
                rows = [self._tallies[name].row()[0] for name in names]
                leases = [one.daemon.lease_s for one in held]
                await self.pool.fetch(SQL["beat"], names, fences, leases, *_columns(rows))
                await self.pool.execute(SQL["give_back"], names, fences)
        except (*AWAY, TimeoutError) as error:
            _log.warning("the leases of daemons could not be given back: %s", error or type(error).__name__)


def _columns(rows: Sequence[Any]) -> list[list[Any]]:
    names = ("runs", "failures", "done", "lag_s", "started_s", "success_s", "error")
    return [[getattr(row, name) for row in rows] for name in names]
