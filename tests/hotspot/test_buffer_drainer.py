"""The buffer drainer: one process drains, another takes over from a dead one, and a full buffer accepts no credits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fundledger.hotspot import buffer_drainer
from fundledger.hotspot.buffer_drainer import LEASE_S, BufferDrainer
from fundledger.jobs.runner import RENEWALS, JobRunner
from fundledger.ledger.store.session import COMMIT, Connection
from tests.support.leases import Pool, expire_leases, running, take_lease
from tests.support.ledger import Ledger, transfer
from tests.support.waiting import eventually


@pytest.fixture
async def pool(ledger: Ledger) -> AsyncIterator[Pool]:
    async with ledger.pool() as pool:
        yield pool


@pytest.fixture
async def drainers(ledger: Ledger, pool: Pool) -> AsyncIterator[list[BufferDrainer]]:
    """Return the drainers of two workers; `rows_max` is 4."""
    workers = [ledger, await ledger.worker(1)]
    made = [BufferDrainer(ledger.dsn, pool, worker.books, 4, 3600) for worker in workers]
    yield made
    for drainer in made:
        drainer.stop()


async def pay(ledger: Ledger, *credits_: int) -> None:
    bank = (await ledger.open("bank", "bank")).view.account
    m = (await ledger.open("m", buffered=True)).view.account
    await ledger.post(*(transfer(bank, m, amount) for amount in credits_))


async def test_one_drains_and_another_takes_over_when_it_is_dead(
    ledger: Ledger, pool: Pool, drainers: list[BufferDrainer]
) -> None:
    first, second = drainers
    lease = await take_lease(pool, "buffer_folder", "dead", LEASE_S)
    await pay(ledger, 1, 2)
    await second.read_backlog()
    assert (await ledger.count("buffered_entries"), second.counted.rows) == (2, 2)
    assert (await first.run(lease)).done == 2
    assert (await ledger.count("buffered_entries"), first.counted.drains, first.counted.drained) == (0, 1, 2)
    assert sum(first.counted.waits) == 2
    await pay(ledger, 3)
    async with running(JobRunner(pool, [second.job()], "heir")):
        await eventually(lambda: second.counted.drained, "another drains")
    assert (await ledger.count("buffered_entries"), second.counted.drained) == (0, 1)
    await ledger.prove()


async def test_a_backlog_is_drained_in_parts_of_whole_batches(
    ledger: Ledger, pool: Pool, drainers: list[BufferDrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease cannot be renewed during a part, and lasts less than a second."""
    monkeypatch.setattr(buffer_drainer, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(drainers[0], "_rows_max", 100)
    drainer = drainers[0]
    lease = await take_lease(pool, "buffer_folder")
    for amounts in ((1,), (2, 4), (8,), (16,)):
        await pay(ledger, *amounts)
    m = (await ledger.open("m")).view.account
    left = []
    for posted in (7, 31):
        ran = await drainer.run(lease)
        left.append((ran.done, ran.more, await ledger.count("buffered_entries")))
        assert await ledger.posted(m) == posted
        await ledger.prove()
    assert left == [(3, True, 2), (2, False, 0)]
    # A debit needs all of the money, and drains all of it.
    for amount in (1, 2, 4, 8):
        await pay(ledger, amount)
    bank = (await ledger.open("bank", "bank")).view.account
    await ledger.post(transfer(m, bank, 46))
    assert (await ledger.posted(m), await ledger.count("buffered_entries")) == (0, 0)
    await ledger.prove()


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([], []),
        ([20_000, 1], [[0], [1]]),
        ([1, 20_000, 1], [[0], [1], [2]]),
        ([6_000, 4_000, 1], [[0, 1], [2]]),
        ([1] * 51, [[*range(50)], [50]]),
    ],
)
def test_the_accounts_of_a_part_have_together_as_many_rows_as_one_may_have(
    rows: list[int], groups: list[list[int]]
) -> None:
    waiting = [buffer_drainer.Waiting(number, count, 0) for number, count in enumerate(rows)]
    assert list(buffer_drainer._groups(waiting)) == groups


class AtCommit:
    """A connection that never returns from a commit. `executes`: the commit reaches the server."""

    def __init__(self, connection: Connection, executes: bool) -> None:
        self._connection = connection
        self._executes = executes
        self.reached = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, statement: str, *arguments: object) -> object:
        if statement != COMMIT or self._executes:
            done = await self._connection.execute(statement, *arguments)
        if statement != COMMIT:
            return done
        self.reached = True
        return await asyncio.Event().wait()


@pytest.mark.parametrize("executes", [False, True], ids=["before the commit", "after the commit"])
async def test_a_drain_that_loses_its_lease_at_its_commit_posts_each_credit_once(
    ledger: Ledger, pool: Pool, drainers: list[BufferDrainer], monkeypatch: pytest.MonkeyPatch, executes: bool
) -> None:
    """A process on a busy machine may lose the short lease although no other process takes it."""
    drainer, connect, stalled = drainers[0], drainers[0]._session._connect, list[AtCommit]()

    async def stalling(name: str) -> Any:
        connection = await connect(name)
        if stalled:
            return connection
        stalled.append(AtCommit(connection, executes))
        return stalled[0]

    async def is_drained_again() -> bool:
        fence = await pool.fetchval("SELECT fence FROM daemons.leases WHERE name = 'buffer_folder'")
        return fence == 2 and await ledger.count("buffered_entries") == 0

    monkeypatch.setattr(drainer._session, "_connect", stalling)
    await pay(ledger, 1, 2)
    async with running(JobRunner(pool, [msgspec.structs.replace(drainer.job(), lease_s=600.0)], "busy")):
        await eventually(lambda: stalled and stalled[0].reached, "it commits")
        await expire_leases(pool)
        await eventually(is_drained_again, "it takes its lease again, and drains")
    assert await ledger.posted((await ledger.open("m")).view.account) == 3
    await ledger.prove()


def test_another_takes_over_within_a_second() -> None:
    assert LEASE_S + LEASE_S / RENEWALS <= 1.0


async def test_when_too_much_waits_nothing_is_added_until_half_is_left(
    ledger: Ledger, pool: Pool, drainers: list[BufferDrainer]
) -> None:
    leader, follower = drainers
    lease = await take_lease(pool, "buffer_folder")
    await leader.run(lease)
    await pay(ledger, 1, 1, 1, 1)
    await follower.read_backlog()
    assert follower._books.buffering
    await pay(ledger, 1)
    await follower.read_backlog()
    assert not follower._books.buffering
    assert follower.counted.direct == 1
    await leader.run(lease)
    await pay(ledger, 1, 1, 1)
    assert await ledger.count("buffered_entries") == 0, "posted directly"
    await leader.run(lease)
    await follower.read_backlog()
    assert follower._books.buffering
    await ledger.prove()


async def test_an_account_that_does_not_verify_delays_no_other(
    ledger: Ledger, pool: Pool, drainers: list[BufferDrainer]
) -> None:
    leader = drainers[0]
    lease = await take_lease(pool, "buffer_folder")
    await pay(ledger, 1)
    bank, other = (await ledger.open("bank", "bank")).view.account, await ledger.account("other", buffered=True)
    await ledger.post(transfer(bank, other, 5))
    await ledger.tamper("UPDATE ledger.accounts SET owner = 'thief' WHERE id = 'm'")
    await leader.run(lease)
    assert await ledger.posted(other) == 5
    await leader.run(lease)
    assert (leader.counted.rows, leader._books.buffering) == (0, True)
    assert await ledger.count("buffered_entries") == 1
