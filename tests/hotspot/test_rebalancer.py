"""The rebalancer splits hot accounts and merges cold ones. All workers follow, and no voucher is refused meanwhile."""

import time
from collections.abc import AsyncIterator

import pytest

from fundledger.hotspot.buffer_drainer import BufferDrainer
from fundledger.hotspot.detector import Thresholds
from fundledger.hotspot.follower import Follower
from fundledger.hotspot.heat import HeatSampler
from fundledger.hotspot.rebalancer import Rebalancer
from fundledger.jobs.job import Lease
from fundledger.ledger.model.account import Account, Status
from tests.support.leases import Pool, expire_leases, take_lease
from tests.support.ledger import Ledger, capture, code, posted, transfer

QUICK = Thresholds(promote=0.5, promote_s=3, demote=0.2, demote_s=60, share_min=0.05)
START = 1_800_000_000.0


class Workers:
    """Two workers with the test's clock, each with a follower and a rebalancer. The first rebalancer has the lease."""

    def __init__(self, ledgers: list[Ledger], pool: Pool, acts: bool = True) -> None:
        self.ledgers = ledgers
        self.pool = pool
        self.at = START
        self.samplers = [HeatSampler() for _ in ledgers]
        self.followers = [
            Follower(
                pool, f"w{i}", ledger.books, sampler, [ledger.session], BufferDrainer("", pool, ledger.books, 9, 9)
            )
            for i, (ledger, sampler) in enumerate(zip(ledgers, self.samplers, strict=True))
        ]
        self.rebalancers = [Rebalancer(ledger.dsn, pool, ledger.books, QUICK, acts=acts) for ledger in ledgers]
        self.lease: Lease | None = None

    async def second(self, *batches: object, busy_s: float = 0.9) -> None:
        """Record this load on all workers. Run all followers, and the first rebalancer, as in one second."""
        for follower, sampler in zip(self.followers, self.samplers, strict=True):
            if batches:
                sampler.batch(batches, busy_s)  # type: ignore[arg-type]
            follower._told_at = time.monotonic() - 1.0
            await follower.follow()
        self.lease = self.lease or await take_lease(self.pool, "hot_keeper")
        await self.rebalancers[0].run_at(self.at, self.lease)
        self.at += 1.0

    def close(self) -> None:
        for rebalancer in self.rebalancers:
            rebalancer.stop()


@pytest.fixture
async def pool(ledger: Ledger) -> AsyncIterator[Pool]:
    async with ledger.pool() as pool:
        yield pool


@pytest.fixture
async def workers(ledger: Ledger, pool: Pool) -> AsyncIterator[Workers]:
    workers = Workers([ledger, await ledger.worker(1)], pool)
    yield workers
    workers.close()


async def slots(ledger: Ledger, account: Account) -> list[int]:
    rows = await ledger.connection.fetch(
        "SELECT status FROM ledger.sub_accounts WHERE account_number = $1 ORDER BY slot", account.number
    )
    return [row["status"] for row in rows]


async def posted_by_slot(ledger: Ledger, account: Account) -> list[int]:
    rows = await ledger.connection.fetch(
        "SELECT posted FROM ledger.sub_accounts WHERE account_number = $1 ORDER BY slot", account.number
    )
    return [row["posted"] for row in rows]


async def test_an_account_that_stays_busy_is_split_for_all_workers_within_five_seconds(
    ledger: Ledger, workers: Workers
) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    seen = []
    for _ in range(5):
        await workers.second(transfer(bank, merchant, 1))
        seen.append((await ledger.view(merchant)).heat)
    assert seen == ["warming", "warming", "warming", "hot", "hot"]
    assert await slots(ledger, merchant) == [Status.OPEN] * 2
    for worker in workers.ledgers:
        found = worker.directory.get("m")
        assert found is not None and found.slots == 2
    events = await ledger.connection.fetch("SELECT slots, reason, module FROM ledger.route_events")
    assert [(e["slots"], e["module"]) for e in events] == [(2, "hotspot")]
    assert "utilisation" in events[0]["reason"]
    assert (workers.rebalancers[0].counted.splits, workers.rebalancers[1].counted.splits) == (1, 0)
    await ledger.prove()


async def test_an_account_that_has_cooled_is_merged(
    ledger: Ledger, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    for _ in range(5):
        await workers.second(transfer(bank, merchant, 1))
    mine = workers.ledgers[1].directory.get("m")
    assert mine is not None
    assert posted(await workers.ledgers[1].post_one(transfer(bank, mine, 5)))
    await workers.second()
    await workers.second()
    assert (await ledger.view(merchant)).heat == "cooling"
    workers.at += 61
    await workers.second()
    assert (await ledger.view(merchant)).heat == "cold"
    changes = [line.__dict__ for line in caplog.records if getattr(line, "event", "") == "account_heat_changed"]
    assert [(line["account"], line["was"], line["is"]) for line in changes] == [
        ("m", "cold", "warming"),
        ("m", "warming", "hot"),
        ("m", "hot", "cooling"),
        ("m", "cooling", "cold"),
    ]
    assert await slots(ledger, merchant) == [Status.OPEN, Status.MERGED]
    assert await ledger.posted(merchant) == 15
    await ledger.prove()


async def test_quiet_accounts_are_left_alone(ledger: Ledger, workers: Workers) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    for _ in range(10):
        await workers.second(transfer(bank, merchant, 1), busy_s=0.1)
    assert (await ledger.view(merchant)).heat == "cold"
    assert await slots(ledger, merchant) == [Status.OPEN]


async def test_a_rebalancer_that_takes_over_continues_from_the_state_of_the_last_one(
    ledger: Ledger, workers: Workers
) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    for _ in range(3):
        await workers.second(transfer(bank, merchant, 1))
    workers.close()
    await expire_leases(workers.pool)
    workers.lease = None
    workers.rebalancers = workers.rebalancers[::-1]
    await workers.second(transfer(bank, merchant, 1))
    assert (await ledger.view(merchant)).heat == "hot"
    assert await slots(ledger, merchant) == [Status.OPEN] * 2
    assert workers.rebalancers[0].counted.splits == 1


async def test_slots_that_debits_need_together_are_levelled(ledger: Ledger, workers: Workers) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=100)
    for _ in range(5):
        await workers.second(transfer(bank, merchant, 1))
    mine = workers.ledgers[1].directory.get("m")
    assert mine is not None
    assert posted(await workers.ledgers[1].post_one(transfer(mine, bank, 10)))
    await workers.second()
    await workers.second()
    assert await posted_by_slot(ledger, merchant) == [45, 45]
    assert workers.rebalancers[0].counted.rebalances == 1
    await ledger.prove()


async def test_a_merge_that_waited_for_a_hold_is_finished(ledger: Ledger, workers: Workers) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    for _ in range(5):
        await workers.second(transfer(bank, merchant, 1))
    mine = workers.ledgers[1].directory.get("m")
    assert mine is not None
    hold = await workers.ledgers[1].hold("h", mine, 7)
    await workers.second()
    await workers.second()
    workers.at += 61
    await workers.second()
    assert await slots(ledger, merchant) == [Status.OPEN] * 2
    assert posted(await ledger.post_one(capture(hold, bank, 7)))
    await workers.second()
    assert await slots(ledger, merchant) == [Status.OPEN, Status.MERGED]
    await ledger.prove()


async def test_with_splitting_off_heat_is_reported_and_nothing_is_split(ledger: Ledger, pool: Pool) -> None:
    workers = Workers([ledger, await ledger.worker(1)], pool, acts=False)
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    for _ in range(6):
        await workers.second(transfer(bank, merchant, 1))
    workers.close()
    assert (await ledger.view(merchant)).heat == "hot"
    assert await slots(ledger, merchant) == [Status.OPEN]


async def test_a_frozen_account_is_not_split(ledger: Ledger, workers: Workers) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    await ledger.freeze(merchant)
    for _ in range(6):
        await workers.second(transfer(bank, merchant, 1))
    assert await slots(ledger, merchant) == [Status.FROZEN_ALL]
    assert code(await ledger.post_one(transfer(bank, merchant, 1))) == "account-frozen"


async def test_a_split_that_fails_is_not_recorded_as_done_and_is_retried(ledger: Ledger, workers: Workers) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    await ledger.freeze(merchant)
    for _ in range(6):
        await workers.second(transfer(bank, merchant, 1))
    counted = workers.rebalancers[0].counted
    assert (await ledger.view(merchant)).heat == "warming"
    assert (counted.splits, counted.transitions, counted.heat) == (0, 1, {"warming": 1})
    await ledger.freeze(merchant, Status.OPEN)
    await workers.second(transfer(bank, merchant, 1))
    assert (await ledger.view(merchant)).heat == "hot"
    assert await slots(ledger, merchant) == [Status.OPEN] * 2
    assert counted.splits == 1
    await ledger.prove()


async def test_a_rebalance_that_fails_is_retried(ledger: Ledger, workers: Workers) -> None:
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=100)
    for _ in range(5):
        await workers.second(transfer(bank, merchant, 1))
    mine = workers.ledgers[1].directory.get("m")
    assert mine is not None
    assert posted(await workers.ledgers[1].post_one(transfer(mine, bank, 10)))
    # The session is not read by a follower: the batch of a freeze also needs more than one slot.
    operator = await ledger.worker(2)
    await operator.freeze(merchant)
    for _ in range(2):
        await workers.second(transfer(bank, merchant, 1))
    counted = workers.rebalancers[0].counted
    assert counted.rebalances == 0
    await operator.freeze(merchant, Status.OPEN)
    await workers.second(transfer(bank, merchant, 1))
    assert await posted_by_slot(ledger, merchant) == [45, 45]
    assert counted.rebalances == 1
    await ledger.prove()


async def test_one_worker_does_not_split(ledger: Ledger, pool: Pool) -> None:
    workers = Workers([ledger], pool)
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m", balance=10)
    for _ in range(6):
        await workers.second(transfer(bank, merchant, 1))
    workers.close()
    assert await slots(ledger, merchant) == [Status.OPEN]
