"""The job runner: exactly one of several processes runs a job, whatever fails. All report a job that does not run."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from fundledger.jobs import runner as runner_module
from fundledger.jobs.job import SQL, Job, Lease, LeaseLost, Ran
from fundledger.jobs.run_once import Taken, run_once
from fundledger.jobs.runner import JobRunner
from fundledger.jobs.watch import standings
from tests.support.leases import Late, Pool, expire_leases, running, take_lease, writes
from tests.support.waiting import eventually


@pytest.fixture
async def pool(fund_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=8) as pool:
        await pool.execute("CREATE TABLE public.written (fence bigint)")
        yield pool


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "BEAT_S", 0.05)


class Work:
    """A background job; `running` counts its concurrent runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.most_at_once = 0
        self.running = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails = False

    async def run(self, lease: Lease) -> Ran:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await self.go_on.wait()
            await asyncio.sleep(0)
            if self.fails:
                raise ValueError("no luck")
            self.runs += 1
            return Ran(done=2, lag_s=1.5)
        finally:
            self.running -= 1


def job(work: Work, lease_s: float = 0.5, every_s: float = 0.02, alarm_after_s: float = 60.0) -> Job:
    return Job("work", work.run, every_s, lease_s, alarm_after_s)


async def row(pool: Pool, name: str = "work"):
    return next(one for one in standings(await pool.fetch(SQL["look"])) if one.name == name)


async def test_one_of_many_runs_it_and_another_takes_over_immediately_after_an_orderly_end(pool: Pool) -> None:
    work = Work()
    runners = [JobRunner(pool, [job(work, lease_s=600)], f"p{i}") for i in range(4)]
    async with running(*runners) as tasks:
        await eventually(lambda: work.runs > 5, "it runs")
        for ended in range(3):
            (holder,) = [i for i, runner in enumerate(runners) if runner.holds() and not tasks[i].done()]
            tasks[holder].cancel()
            await asyncio.gather(tasks[holder], return_exceptions=True)
            before = work.runs
            await eventually(lambda before=before: work.runs > before, "another goes on")
            assert (await row(pool)).fence == ended + 2
    assert work.most_at_once == 1


async def test_what_was_run_is_recorded(pool: Pool) -> None:
    work = Work()
    runner = JobRunner(pool, [job(work)], "p0")
    async with running(runner):
        await eventually(lambda: work.runs > 3, "it runs")

        async def recorded() -> bool:
            # No further run may begin: a run that is cancelled after its end and before its record is not counted.
            work.go_on.clear()
            return (await row(pool)).runs == work.runs

        await eventually(recorded, "each run that ended is recorded")
    one = await row(pool)
    assert (one.runs, one.failures, one.done, one.lag_s) == (work.runs, 0, 2 * work.runs, 1.5)
    assert (one.holder, one.last_error, one.overdue) == (None, None, False)
    assert runner.counted().runs == {"work succeeded": work.runs, "work failed": 0}


async def ended_during(pool: Pool, statement: str, after: Callable[[Work], bool]) -> tuple[Work, Any]:
    """Cancel a runner while it waits for the response to a query that renews its leases."""
    work = Work()
    late = Late(pool, SQL[statement], lambda: after(work))
    runner = JobRunner(late, [job(work, lease_s=600)], "p0")  # type: ignore[arg-type]
    async with running(runner) as tasks:
        await late.executed.wait()
        tasks[0].cancel()
        await asyncio.sleep(0)
        late.let_go.set()
    return work, await row(pool)


async def test_a_beat_under_way_at_the_end_is_recorded_once(pool: Pool) -> None:
    work, one = await ended_during(pool, "beat", lambda work: work.runs > 0)
    assert work.runs > 0
    assert (one.runs, one.done, one.holder) == (work.runs, 2 * work.runs, None)


async def test_a_lease_that_is_being_taken_at_the_end_is_released(pool: Pool) -> None:
    _, one = await ended_during(pool, "take", lambda work: True)
    assert (one.fence, one.holder) == (1, None)


async def test_a_run_that_fails_is_reported_and_tried_again(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    work.fails = True
    async with running(JobRunner(pool, [job(work)], "p0")):

        async def told() -> bool:
            return (await row(pool)).last_error == "ValueError: no luck"

        await eventually(lambda: "work" in caplog.text and caplog.text, "it failed")
        await eventually(told, "its row says why")
        work.fails = False
        await eventually(lambda: work.runs, "it runs again")
    one = await row(pool)
    assert one.last_error is None
    assert one.failures >= 1


async def test_a_holder_that_was_paused_past_its_lease_cannot_write(pool: Pool) -> None:
    """The former lease owner has not noticed the end of its lease: neither its timer nor a renewal has run."""
    paused = await take_lease(pool, "work", "paused")
    await expire_leases(pool)
    assert (await take_lease(pool, "work", "next")).fence == paused.fence + 1
    assert await writes(pool, paused) is False
    assert await pool.fetchval("SELECT count(*) FROM public.written") == 0


async def test_without_the_fence_it_could(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin checks the lease owner instead of the fencing token."""
    careless = SQL["standing"].replace("AND l.fence = $2", "AND $2::bigint IS NOT NULL")
    assert careless != SQL["standing"]
    monkeypatch.setitem(SQL, "standing", careless)
    paused = await take_lease(pool, "work", "paused")
    await expire_leases(pool)
    await take_lease(pool, "work", "next")
    assert await writes(pool, paused) is True


async def test_no_process_takes_a_lease_while_its_holder_commits(pool: Pool) -> None:
    lease = await take_lease(pool, "work", "holder")
    async with pool.acquire() as connection, connection.transaction():
        await lease.hold(connection)
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "5s", "not if it is suspended"
        renewed = await pool.fetch(SQL["beat"], ["work"], [lease.fence], [5.0], *([[0]] * 4), [None], [None], [None])
        assert len(renewed) == 1, "its renewal does not wait for that"
        await expire_leases(pool)
        assert await pool.fetch(SQL["take"], ["work"], [5.0], "thief") == []
    assert len(await pool.fetch(SQL["take"], ["work"], [5.0], "next")) == 1


async def test_a_run_is_cancelled_when_its_lease_was_taken(pool: Pool) -> None:
    first, second = Work(), Work()
    first.go_on.clear()
    slow = JobRunner(pool, [job(first, lease_s=600)], "slow")
    following = JobRunner(pool, [job(second, lease_s=600)], "next")

    async def is_taken() -> bool:
        # If the first runner is faster, it takes the lease again.
        await expire_leases(pool)
        await following.beat()
        return following.holds() == ["work"]

    async with running(slow):
        await eventually(lambda: first.running, "it runs, for long")
        await eventually(is_taken, "another process has the lease")
        await eventually(lambda: not first.running, "it is cancelled")
        assert slow.holds() == []
    await following.end()


async def test_a_run_is_cancelled_when_its_lease_cannot_be_renewed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    work.go_on.clear()
    runner = JobRunner(pool, [job(work)], "cut off")
    async with running(runner):
        await eventually(lambda: work.running, "it runs, for long")

        async def away() -> None:
            raise OSError("the database is away")

        monkeypatch.setattr(runner, "beat", away)
        await eventually(lambda: not work.running, "it is cancelled")
    assert work.runs == 0


async def test_a_run_may_be_longer_than_its_lease(pool: Pool) -> None:
    work = Work()
    work.go_on.clear()
    runner = JobRunner(pool, [job(work, lease_s=0.3)], "p0")
    async with running(runner):
        await eventually(lambda: work.running, "it runs")
        taken_at = (await row(pool)).taken_at

        async def well_past() -> bool:
            return await pool.fetchval("SELECT clock_timestamp() - $1 > interval '1 second'", taken_at)

        await eventually(well_past, "three leases have passed")
        assert (await row(pool)).fence == 1
        work.go_on.set()
        await eventually(lambda: work.runs, "it ends well")


KILLED = """
import asyncio, sys, asyncpg
from fundledger.jobs.job import Job, Ran
from fundledger.jobs.runner import JobRunner

async def run(lease):
    print(lease.fence, flush=True)
    return Ran()

async def main():
    async with asyncpg.create_pool(sys.argv[1], min_size=1, max_size=2) as pool:
        await JobRunner(pool, [Job("work", run, 0.1, 1.0)], "killed").run()

asyncio.run(main())
"""


async def test_after_a_kill_another_one_takes_over(pool: Pool, fund_database: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, fund_database, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"1\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    work = Work()
    async with running(JobRunner(pool, [job(work, lease_s=1.0)], "heir")):
        await eventually(lambda: work.runs, "the next one runs it")
        heir = await row(pool)
    assert (heir.fence, heir.holder) == (2, "heir")


async def test_every_process_reports_a_job_that_no_process_runs_once_a_minute(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    work.fails = True
    holder = JobRunner(pool, [job(work, alarm_after_s=0.001)], "holder")
    watcher = JobRunner(pool, [], "watcher", retires=False)
    await holder.beat()
    await watcher.beat()
    for runner in (holder, watcher):
        with caplog.at_level(logging.CRITICAL):
            caplog.clear()
            runner.watch.tell()
            runner.watch.tell()
        assert [record.levelname for record in caplog.records if record.name.endswith("watch")] == ["CRITICAL"]
        assert runner.counted().overdue == {"work": 1}
    await holder.end()


async def test_a_job_that_is_not_wanted_any_more_is_not_reported_as_missing(pool: Pool) -> None:
    await JobRunner(pool, [job(Work(), alarm_after_s=0.001)], "old").beat()
    await expire_leases(pool)
    runner = JobRunner(pool, [], "new")
    await runner.beat()
    assert runner.counted().overdue == {"work": 0}


async def test_an_operator_runs_a_job_once_unless_another_process_holds_its_lease(pool: Pool) -> None:
    work = Work()
    assert await run_once(pool, job(work, lease_s=600), "operator") == Ran(2, 1.5)
    assert (await row(pool)).holder is None
    await take_lease(pool, "work", "somebody")
    assert await run_once(pool, job(work, lease_s=600), "operator") == Taken("somebody")
    assert work.runs == 1


async def test_an_operators_run_that_fails_is_recorded_and_raised(pool: Pool) -> None:
    work = Work()
    work.fails = True
    with pytest.raises(ValueError, match="no luck"):
        await run_once(pool, job(work, lease_s=600), "operator")
    one = await row(pool)
    assert (one.holder, one.failures, one.last_error) == (None, 1, "ValueError: no luck")


async def test_an_operators_run_ends_with_its_lease(pool: Pool) -> None:
    work = Work()
    work.go_on.clear()
    running_once = asyncio.create_task(run_once(pool, job(work, lease_s=600), "operator"))
    await eventually(lambda: work.running, "it runs, for long")
    await expire_leases(pool)
    with pytest.raises(LeaseLost):
        await running_once
    assert (work.running, work.runs) == (0, 0)


@pytest.mark.parametrize("during", ["take", "look", "run"])
async def test_an_operators_run_that_is_cancelled_releases_its_lease(pool: Pool, during: str) -> None:
    """The runner first takes the lease, which begins the run, and then reads the status of all jobs."""
    work = Work()
    work.go_on.clear()
    late = Late(pool, SQL["take" if during == "take" else "look"])
    running_once = asyncio.create_task(run_once(late, job(work, lease_s=600), "operator"))  # type: ignore[arg-type]
    await late.executed.wait()
    if during == "run":
        late.let_go.set()
        await eventually(lambda: work.running, "it runs, for long")
    running_once.cancel()
    await asyncio.sleep(0)
    late.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await running_once
    assert (work.running, (await row(pool)).holder) == (0, None)
