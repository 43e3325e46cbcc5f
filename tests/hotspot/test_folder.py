"""The buffer drainer: one of several drains, another takes over, and a full buffer accepts no more credits."""

from collections.abc import AsyncIterator

import pytest

from fundledger.hotspot.buffer_drainer import BufferDrainer
from tests.support.ledger import Ledger, transfer


@pytest.fixture
async def folders(ledger: Ledger) -> AsyncIterator[list[BufferDrainer]]:
    """Return the drainers of two workers; `rows_max` is 4."""
    workers = [ledger, await ledger.worker(1)]
    made = [BufferDrainer(ledger.dsn, str(i), worker.books, 4, 3600) for i, worker in enumerate(workers)]
    yield made
    for folder in made:
        folder._drop()


async def pay(ledger: Ledger, *credits_: int) -> None:
    bank = (await ledger.open("bank", "bank")).view.account
    m = (await ledger.open("m", buffered=True)).view.account
    await ledger.post(*(transfer(bank, m, amount) for amount in credits_))


async def test_one_folds_and_another_takes_over_when_it_is_gone(ledger: Ledger, folders: list[BufferDrainer]) -> None:
    first, second = folders
    await first.tick()
    await pay(ledger, 1, 2)
    await second.tick()
    assert (await ledger.count("buffered_entries"), second.counted.rows) == (2, 2)
    await first.tick()
    assert (await ledger.count("buffered_entries"), first.counted.folds, first.counted.folded) == (0, 1, 2)
    assert sum(first.counted.waits) == 2
    await pay(ledger, 3)
    assert first._connection is not None
    await first._connection.close()
    await second.tick()
    assert (await ledger.count("buffered_entries"), second.counted.folded) == (0, 1)
    await ledger.prove()


async def test_when_too_much_waits_nothing_is_added_until_half_is_left(
    ledger: Ledger, folders: list[BufferDrainer]
) -> None:
    leader, follower = folders
    await leader.tick()
    await pay(ledger, 1, 1, 1, 1)
    await follower.tick()
    assert follower._books.buffering
    await pay(ledger, 1)
    await follower.tick()
    assert not follower._books.buffering
    assert follower.counted.direct == 1
    await leader.tick()
    await pay(ledger, 1, 1, 1)
    assert await ledger.count("buffered_entries") == 0, "posted directly"
    await leader.tick()
    await follower.tick()
    assert follower._books.buffering
    await ledger.prove()


async def test_an_account_that_does_not_verify_delays_no_other(ledger: Ledger, folders: list[BufferDrainer]) -> None:
    leader = folders[0]
    await pay(ledger, 1)
    bank, other = (await ledger.open("bank", "bank")).view.account, await ledger.account("other", buffered=True)
    await ledger.post(transfer(bank, other, 5))
    await ledger.tamper("UPDATE ledger.accounts SET owner = 'thief' WHERE id = 'm'")
    await leader.tick()
    assert await ledger.posted(other) == 5
    await leader.tick()
    assert (leader.counted.rows, leader._books.buffering) == (0, True)
    assert await ledger.count("buffered_entries") == 1
