"""The buffer drainer: one of several drains, another takes over, and a full buffer accepts no more credits."""

from collections.abc import AsyncIterator

import pytest

from fundledger.hotspot.buffer_drainer import LEASE_S, BufferDrainer
from fundledger.jobs.runner import RENEWALS, JobRunner
from tests.support.leases import Pool, running, take_lease
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
    assert (await ledger.count("buffered_entries"), first.counted.folds, first.counted.folded) == (0, 1, 2)
    assert sum(first.counted.waits) == 2
    await pay(ledger, 3)
    async with running(JobRunner(pool, [second.job()], "heir")):
        await eventually(lambda: second.counted.folded, "another drains")
    assert (await ledger.count("buffered_entries"), second.counted.folded) == (0, 1)
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
