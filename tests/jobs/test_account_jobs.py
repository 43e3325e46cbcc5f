"""Background jobs of the account service: each can be run by hand, and changes nothing after its lease was lost."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from fundledger.app.account.jobs.expiry import Expiry
from fundledger.app.account.jobs.table import NAMES
from fundledger.app.commands.jobs import run_job
from fundledger.app.host.postgres.databases import migrate_account
from fundledger.hotspot.buffer_drainer import BufferDrainer
from fundledger.hotspot.detector import Thresholds
from fundledger.hotspot.heat import Report, Warm
from fundledger.hotspot.rebalancer import SQL as HOTSPOT
from fundledger.hotspot.rebalancer import Rebalancer
from fundledger.jobs.job import Job, Lease, Ran
from fundledger.jobs.runner import JobRunner
from fundledger.ledger.model import clock
from fundledger.ledger.store.queries import SQL as LEDGER
from fundledger.settings import Settings
from tests.support.leases import Late, Pool, expire_leases, take_lease
from tests.support.ledger import Ledger, transfer
from tests.support.waiting import eventually

Make = Callable[[Ledger, Pool], Job]


@pytest.fixture
async def pool(ledger: Ledger) -> AsyncIterator[Pool]:
    async with ledger.pool() as pool:
        yield pool


@pytest.fixture
async def busy(ledger: Ledger, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Return a ledger with work for each job: an expired hold, a buffered credit, an account that becomes hot."""
    bank = await ledger.account("bank", "bank")
    held, hot = await ledger.account("held", balance=10), await ledger.account("hot", balance=10)
    buffered = await ledger.account("buffered", buffered=True)
    await ledger.post(transfer(bank, buffered, 5))
    now = clock.now_us()
    await ledger.hold("h", held, 7, expires_at_us=now + 60_000_000)
    monkeypatch.setattr(clock, "now_us", lambda: now + 61_000_000)
    await pool.execute(HOTSPOT["write_hot_account"], hot.number, "warming", 1.0, 0.9)
    for worker in ("w0", "w1"):
        report = Report(1.0, 10, [Warm(hot.number, 10, 0.9)])
        await pool.execute(HOTSPOT["tell_heat"], worker, msgspec.json.encode(report).decode())
    return ledger


def rebalancing(acts: bool) -> Make:
    return lambda ledger, pool: Rebalancer(ledger.dsn, pool, ledger.books, Thresholds(), acts=acts).job()


@pytest.mark.parametrize(
    ("make", "reads"),
    [
        (lambda ledger, pool: Expiry(ledger.dsn, pool, ledger.books).job(), LEDGER["expired_holds"]),
        (lambda ledger, pool: BufferDrainer(ledger.dsn, pool, ledger.books, 9, 9).job(), HOTSPOT["backlog"]),
        (rebalancing(True), HOTSPOT["read_heat"]),
        (rebalancing(False), HOTSPOT["read_heat"]),
    ],
    ids=["expiry", "drainer", "rebalancer", "rebalancer that records only"],
)
async def test_a_process_that_was_paused_past_its_lease_changes_nothing(
    busy: Ledger, pool: Pool, make: Make, reads: str
) -> None:
    """The process has read the pending work. Another process takes the lease before the first one continues."""
    late, ended = Late(pool, reads), asyncio.Event()
    job = make(busy, late)  # type: ignore[arg-type]

    async def run(lease: Lease) -> Ran:
        try:
            return await job.run(lease)
        finally:
            ended.set()

    async def idle(lease: Lease) -> Ran:
        return Ran()

    paused = JobRunner(pool, [msgspec.structs.replace(job, run=run, lease_s=600.0)], "paused")
    following = JobRunner(pool, [Job(job.name, idle, 60.0)], "following")
    await paused.beat()
    await late.executed.wait()
    await expire_leases(pool)
    await following.beat()
    assert following.holds() == [job.name]
    before = await everything(busy)
    late.let_go.set()
    await ended.wait()
    assert await everything(busy) == before
    await eventually(lambda: not paused.holds(), "it has noticed")
    await following.end()


async def everything(ledger: Ledger) -> list[object]:
    tables = ("hot_accounts", "heat", "routes", "route_events")
    rows = [await ledger.connection.fetch(f"SELECT * FROM ledger.{table} ORDER BY 1") for table in tables]
    return [await ledger.state(), *rows]


async def test_each_job_can_be_run_by_hand(
    busy: Ledger, pool: Pool, keys_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(keys_folder, tmp_path / "keys")
    settings = Settings(data_dir=tmp_path, account_dsn=busy.dsn, fund="off")
    await migrate_account(busy.dsn, settings)
    assert [await run_job(settings, name) for name in NAMES] == [0] * len(NAMES)
    done = [line.split(" done")[0] for line in capsys.readouterr().out.splitlines()]
    assert done == ["hold_expiry: 1", "mac_sweep: 0", "hot_keeper: 1", "buffer_folder: 1"]
    assert await pool.fetchval("SELECT count(*) FROM ledger.sub_accounts WHERE slot > 0 AND status = 0") > 0
    for name in NAMES:
        await take_lease(pool, name, "a worker")
        assert await run_job(settings, name) == 1
        assert f"{name}: already running, lease owner a worker" in capsys.readouterr().out
    await busy.prove()
