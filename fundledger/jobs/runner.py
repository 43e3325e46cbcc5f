"""Framework for background jobs: the job runner of a process, which runs jobs under leases and monitors all jobs.

A runner works in beats. In each beat the runner first renews its leases and records their runs, in one query. Then it
takes free leases. Then it reads the status of all jobs. A beat begins every second, or more often if one of the jobs
has a short lease.

A lease ends by the clock of the database. The lease owner measures the lease by its own monotonic clock, beginning
before it sends the request. So the owner cancels the run in time, even if the database does not answer. A process may
be paused for longer than its lease, for example on a frozen machine. Then the next write of the process fails, because
`Lease.hold` precedes each write and accepts only the latest fencing token.

After a SIGKILL, another process takes over after at most the duration of the lease and one beat. After a graceful stop,
another process takes over within one beat.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from fundledger.jobs.job import SQL, Job, Lease, LeaseLost
from fundledger.jobs.run_stats import RunStats
from fundledger.jobs.watch import Counted, Watch

BEAT_S: Final = 1.0
RENEWALS: Final = 4
"""Minimum number of beats within the duration of each lease."""
BEAT_MAX_S: Final = 2.0
"""Timeout of a beat. A database that has not answered by then counts as unavailable."""
BACK_OFF_MAX_S: Final = 5.0
AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_log = logging.getLogger(__name__)
T = TypeVar("T")


class _Held:
    """A lease of this process, the task that runs its job, and the timer that stops the task if the lease is not
    renewed. `loss`: why the lease was lost.
    """

    def __init__(self, job: Job, lease: Lease) -> None:
        self.job = job
        self.lease = lease
        self.task: asyncio.Task[None]
        self.timer: asyncio.TimerHandle | None = None
        self.loss: str | None = None


class JobRunner:
    """The runner of `jobs` under leases. `holder`: a unique name of this process. `retires`: stop the alarms of all
    jobs that are not in `jobs`. A cancellation of `run` releases the leases.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        jobs: Sequence[Job],
        holder: str,
        *,
        retires: bool = True,
    ) -> None:
        self.pool = pool
        self._jobs = {job.name: job for job in jobs}
        self._stats = {name: RunStats(name) for name in self._jobs}
        self._holder = holder
        self._retires = retires
        self._held: dict[str, _Held] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._known = False
        self.watch = Watch()

    async def run(self) -> None:
        """Renew leases and run the jobs until cancelled. A cancellation waits for the current beat, stops the jobs and
        releases the leases.
        """
        beat_s = min([BEAT_S, *(job.lease_s / RENEWALS for job in self._jobs.values())])
        try:
            while True:
                pause_s = beat_s if await to_its_end(self._try_to_beat()) else BEAT_S
                self.watch.tell()
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.0))  # noqa: S311 - spreads the beats of processes
        finally:
            await self.end()

    async def _try_to_beat(self) -> bool:
        """Execute one beat. Return True on success; log a failure and return False."""
        try:
            async with asyncio.timeout(BEAT_MAX_S):
                await self.beat()
        except (*AWAY, TimeoutError) as error:
            _log.warning(
                "renewing the leases of background jobs failed: %s",
                error or type(error).__name__,
                extra={"event": "lease_renewal_failed"},
            )
        except Exception:
            _log.exception("renewing the leases of background jobs failed", extra={"event": "lease_renewal_failed"})
        else:
            return True
        return False

    async def beat(self) -> None:
        """Execute one beat: renew leases, record runs, take free leases, read the status of all jobs. Raises what
        asyncpg raises. After such a failure, leases that were not renewed end at their time.
        """
        if not self._known:
            names = list(self._jobs)
            await self.pool.execute(SQL["know"], names, [job.alarm_after_s for job in self._jobs.values()])
            if self._retires:
                await self.pool.execute(SQL["retire"], names)
            self._known = True
        await self._renew()
        await self._take()
        await self.watch.look(self.pool)

    def holds(self) -> list[str]:
        """Return the names of the jobs whose leases this process has."""
        return sorted(self._held)

    def counted(self) -> Counted:
        return self.watch.counted(self._stats.values())

    async def _renew(self) -> None:
        held = list(self._held.values())
        if not held:
            return
        sent_at = asyncio.get_running_loop().time()
        rows = [self._stats[one.job.name].row() for one in held]
        leases = [one.job.lease_s for one in held]
        fences = [one.lease.fence for one in held]
        names = [one.job.name for one in held]
        standing = await self.pool.fetch(SQL["beat"], names, fences, leases, *_columns([row for row, _ in rows]))
        renewed = {row["name"] for row in standing}
        for one, (_, counts) in zip(held, rows, strict=True):
            if one.job.name in renewed:
                self._stats[one.job.name].written(counts)
                self._stands_until(one, sent_at + one.job.lease_s)
            else:
                self._lose(one, "another process may own it")

    async def _take(self) -> None:
        ending = {task.get_name() for task in self._ending}
        free = [one for name, one in self._jobs.items() if name not in self._held and name not in ending]
        if not free:
            return
        sent_at = asyncio.get_running_loop().time()
        names, leases = [one.name for one in free], [one.lease_s for one in free]
        for row in await self.pool.fetch(SQL["take"], names, leases, self._holder):
            self._begin(self._jobs[row["name"]], row["fence"], sent_at)

    def _begin(self, job: Job, fence: int, sent_at: float) -> None:
        _log.info(
            "background job started: lease taken",
            extra={"event": "lease_taken", "job": job.name, "fence": fence},
        )
        held = _Held(job, Lease(job.name, fence, 0.0))
        self._held[job.name] = held
        self._stands_until(held, sent_at + job.lease_s)
        held.task = asyncio.get_running_loop().create_task(self._work(held), name=job.name)
        held.task.add_done_callback(self._ended)
        self._ending.add(held.task)

    def _stands_until(self, held: _Held, until: float) -> None:
        held.lease.until = until
        if held.timer is not None:
            held.timer.cancel()
        held.timer = asyncio.get_running_loop().call_at(until, self._lose, held, "it was not renewed in time")

    def _lose(self, held: _Held, why: str) -> None:
        if held.lease.lost and self._held.get(held.job.name) is not held:
            return
        _log.warning("job lease lost: %s", why, extra={"event": "lease_lost", "job": held.job.name})
        held.loss = why
        self._stop(held)

    def _stop(self, held: _Held) -> None:
        held.lease.lost = True
        if held.timer is not None:
            held.timer.cancel()
        if self._held.get(held.job.name) is held:
            del self._held[held.job.name]
        held.task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        held = self._held.get(task.get_name())
        if held is not None and held.task is task:
            # The job cancelled itself. Its lease is no longer renewed, and a later beat may take the lease again.
            self._stop(held)
        ended = self._jobs[task.get_name()].ended
        if ended is not None:
            ended()

    async def _work(self, held: _Held) -> None:
        """Run the job repeatedly, until the lease ends."""
        job, lease, stats = held.job, held.lease, self._stats[held.job.name]
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while not lease.lost:
            began = loop.time()
            stats.started()
            try:
                ran = await job.run(lease)
            except LeaseLost as lost:
                stats.failed(lost)
                self._lose(held, str(lost))
                return
            except asyncio.CancelledError:
                if held.loss is not None:
                    stats.failed(LeaseLost(f"{job.name}: {held.loss}"))
                raise
            except Exception as error:
                in_a_row += 1
                stats.failed(error)
                extra = {"event": "job_run_failed", "job": job.name}
                if isinstance(error, AWAY):
                    _log.warning("background job failed: %s", error, extra=extra)
                else:
                    _log.exception("background job failed", extra=extra)
                pause_s = max(job.every_s, min(BACK_OFF_MAX_S, 0.25 * 2.0**in_a_row))
            else:
                in_a_row = 0
                stats.ran(ran)
                pause_s = 0.0 if ran.more else max(0.0, job.every_s - (loop.time() - began))
            await asyncio.sleep(pause_s)

    async def end(self) -> None:
        """Stop the jobs and release their leases. A failure is logged."""
        held = list(self._held.values())
        for one in held:
            self._stop(one)
        if self._ending:
            await asyncio.wait(self._ending, timeout=BEAT_MAX_S)
        if not held:
            return
        # The release is not shielded: after a second cancellation the leases are not released, but expire.
        try:
            async with asyncio.timeout(BEAT_MAX_S):
                names, fences = [one.job.name for one in held], [one.lease.fence for one in held]
                rows = [self._stats[name].row()[0] for name in names]
                leases = [one.job.lease_s for one in held]
                await self.pool.fetch(SQL["beat"], names, fences, leases, *_columns(rows))
                await self.pool.execute(SQL["give_back"], names, fences)
        except (*AWAY, TimeoutError) as error:
            _log.warning(
                "releasing the leases of background jobs failed: %s",
                error or type(error).__name__,
                extra={"event": "lease_release_failed"},
            )


async def to_its_end(beat: Coroutine[Any, Any, T]) -> T:
    """Return the result of a beat. A cancellation takes effect after the beat.

    If a beat were interrupted, the next beat might record the same runs again. An interrupted beat might also have
    taken a lease that the process would never release.
    """
    task = asyncio.get_running_loop().create_task(beat)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _columns(rows: Sequence[Any]) -> list[list[Any]]:
    names = ("runs", "failures", "done", "lag_s", "started_s", "success_s", "error")
    return [[getattr(row, name) for row in rows] for name in names]
