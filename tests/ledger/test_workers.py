"""Several workers and several shards: no deadlock, no lost update, and different slots for different workers."""

import pytest

from fundledger.ledger.model.account import Status
from tests.support.halfway import Halfway, overtaken
from tests.support.ledger import (
    Ledger,
    accounts_by_shard,
    code,
    codes,
    new_id,
    posted,
    together,
    transfer,
    voucher,
)
from tests.support.length import unless_long

ROUNDS = unless_long(2, 20)


async def test_a_worker_that_waited_decides_over_what_the_other_left(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    other = await ledger.worker(1)
    other.lock_always()
    async with overtaken(ledger, transfer(a, b, 10), other, transfer(a, b, 10)) as outcomes:
        assert codes(outcomes) == ["posted", "insufficient-funds"]
    await ledger.prove()


async def test_a_worker_that_had_read_decides_again_over_what_the_other_left(ledger: Ledger) -> None:
    """The worker has read without a lock, and its write waits for the other worker."""
    a, b, c = [await ledger.account(f"m:{i}", balance=10) for i in range(3)]
    other = await ledger.worker(1)
    async with overtaken(ledger, transfer(a, b, 10), other, transfer(a, c, 10)) as outcomes:
        assert codes(outcomes) == ["posted", "insufficient-funds"]
    assert other.session._unlocked is not None, "it did not try without a lock"
    await ledger.prove()


async def test_opposite_transfers_do_not_deadlock(ledger: Ledger, postgres) -> None:
    a, b = await ledger.account("m:1", balance=1000), await ledger.account("m:2", balance=1000)
    workers = [await ledger.worker(i) for i in range(4)]
    logged = len(postgres.log.read_bytes())
    for _ in range(20):
        posts = [w.post(transfer(a, b, 1), transfer(b, a, 1)) for w in workers[::2]]
        posts += [w.post(transfer(b, a, 1), transfer(a, b, 1)) for w in workers[1::2]]
        for outcomes in await together(*posts):
            assert codes(outcomes) == ["posted", "posted"]
    assert (await ledger.posted(a), await ledger.posted(b)) == (1000, 1000)
    assert b"deadlock" not in postgres.log.read_bytes()[logged:]
    await ledger.prove()


async def test_the_same_new_ids_in_opposite_orders_do_not_deadlock(ledger: Ledger, postgres) -> None:
    """The workers use different slots, so that only the ids can make them wait for each other."""
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    other = await ledger.worker(1)
    logged = len(postgres.log.read_bytes())
    for _ in range(ROUNDS):
        ids = [new_id() for _ in range(2000)]
        ours = [transfer(bank, fees, 1, id_=id_) for id_ in ids]
        theirs = [transfer(bank, fees, 1, id_=id_) for id_ in reversed(ids)]
        for outcomes in await together(ledger.post(*ours), other.post(*theirs)):
            assert set(codes(outcomes)) == {"posted"}
    assert b"deadlock" not in postgres.log.read_bytes()[logged:]
    assert await ledger.posted(fees) == ROUNDS * 2000
    await ledger.prove()


@pytest.mark.layout(shards=1, platform_slots=4)
async def test_each_worker_posts_to_its_own_slot_of_a_platform_account(ledger: Ledger) -> None:
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    for ordinal in range(5):
        await (await ledger.worker(ordinal)).post(transfer(bank, fees, 10**ordinal))
    rows = await ledger.connection.fetch(
        "SELECT slot, posted FROM ledger.sub_accounts WHERE account_number = $1 ORDER BY slot", fees.number
    )
    assert [tuple(row) for row in rows] == [(0, 10001), (1, 10), (2, 100), (3, 1000)]
    view = await ledger.view(fees)
    assert (view.posted, view.sub_accounts) == (11111, 4)
    await ledger.prove()


@pytest.mark.layout(shards=1, platform_slots=2)
async def test_workers_on_their_own_slots_do_not_wait_for_each_other(ledger: Ledger) -> None:
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    halfway = Halfway(ledger)
    await halfway.write(transfer(bank, fees, 1))
    other = await ledger.worker(1)
    assert posted(await other.post_one(transfer(bank, fees, 1)))  # otherwise it would wait for the lock time-out
    await halfway.commit()
    assert await ledger.posted(fees) == 2
    await ledger.prove()


# --- Shards ------------------------------------------------------------------------------------------------------------


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_all_accounts_of_an_owner_live_in_one_shard(ledger: Ledger) -> None:
    kinds = ("merchant_available", "merchant_pending", "receivable")
    for owner in ("o:1", "o:2", "o:3", "o:4", "o:5"):
        shards = {(await ledger.account(f"{owner}:{kind}", kind, owner=owner)).shard for kind in kinds}
        assert len(shards) == 1


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_a_platform_account_has_sub_accounts_in_every_shard(ledger: Ledger) -> None:
    bank = await ledger.account("bank", "bank")
    rows = await ledger.connection.fetch(
        "SELECT shard, slot FROM ledger.sub_accounts WHERE account_number = $1 ORDER BY 1, 2", bank.number
    )
    assert [tuple(row) for row in rows] == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5), (3, 6), (3, 7)]
    by_shard = await accounts_by_shard(ledger, balance=5)
    for shard, accounts in by_shard.items():
        payment = transfer(bank, accounts[0], 1)
        await ledger.post(payment)
        query = "SELECT array_agg(DISTINCT shard) FROM ledger.entries WHERE voucher_id = $1"
        assert await ledger.connection.fetchval(query, payment.id) == [shard]
    await ledger.prove()


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_a_voucher_between_two_shards_is_posted_in_one_transaction(ledger: Ledger) -> None:
    by_shard = await accounts_by_shard(ledger, balance=100)
    bank = await ledger.account("bank", "bank")
    a, b, c = by_shard[3][0], by_shard[0][0], by_shard[2][1]
    payment = voucher((a, -10), (b, 3), (c, 4), (bank, 3))
    assert posted(await ledger.post_one(payment))
    query = "SELECT shard, xmin::text AS tx FROM ledger.entries WHERE voucher_id = $1"
    rows = await ledger.connection.fetch(query, payment.id)
    assert sorted(row["shard"] for row in rows) == [0, 2, 3, 3]
    assert len({row["tx"] for row in rows}) == 1
    assert [await ledger.posted(x) for x in (a, b, c)] == [90, 103, 104]
    assert (await ledger.post_one(voucher((a, -10), (b, 3), (c, 4), (bank, 3), id_=payment.id))).replay
    await ledger.prove()


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_a_refused_voucher_between_two_shards_writes_nothing_in_either(ledger: Ledger) -> None:
    by_shard = await accounts_by_shard(ledger)
    a, b = by_shard[1][0], by_shard[2][0]
    assert code(await ledger.post_one(transfer(a, b, 1))) == "insufficient-funds"
    assert await ledger.count("entries") == 0
    await ledger.prove()


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_an_id_counts_once_over_all_shards(ledger: Ledger) -> None:
    by_shard = await accounts_by_shard(ledger, balance=100)
    bank = await ledger.account("bank", "bank")
    id_ = new_id()
    first, second = (transfer(bank, by_shard[shard][0], 1, id_=id_) for shard in (0, 3))
    assert posted(await ledger.post_one(first))
    assert code(await ledger.post_one(second)) == "voucher-id-reused"
    other = await ledger.worker(1)
    id_ = new_id()
    third, fourth = (transfer(bank, by_shard[shard][0], 1, id_=id_) for shard in (0, 3))
    async with overtaken(ledger, third, other, fourth) as outcomes:
        assert codes(outcomes) == ["posted", "voucher-id-reused"]
    await ledger.prove()


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_opposite_transfers_between_shards_do_not_deadlock(ledger: Ledger, postgres) -> None:
    by_shard = await accounts_by_shard(ledger, balance=1000)
    everyone = [account for accounts in by_shard.values() for account in accounts]
    workers = [await ledger.worker(i) for i in range(3)]
    logged = len(postgres.log.read_bytes())
    for round_ in range(10):
        posts = []
        for i, worker in enumerate(workers):
            order = everyone if (round_ + i) % 2 else everyone[::-1]
            batch = [transfer(a, b, 1) for a, b in zip(order, [*order[1:], order[0]], strict=True)]
            posts.append(worker.post(*batch))
        for outcomes in await together(*posts):
            assert set(codes(outcomes)) == {"posted"}
    assert {await ledger.posted(account) for account in everyone} == {1000}
    assert b"deadlock" not in postgres.log.read_bytes()[logged:]
    await ledger.prove()


@pytest.mark.layout(shards=3, platform_slots=2)
async def test_a_platform_account_is_frozen_and_closed_in_every_shard(ledger: Ledger) -> None:
    by_shard = await accounts_by_shard(ledger)
    bank = await ledger.account("bank", "bank")
    assert (await ledger.freeze(bank)).refusal is None
    outcomes = await ledger.post(*(transfer(bank, accounts[0], 1) for accounts in by_shard.values()))
    assert codes(outcomes) == ["account-frozen"] * 3
    assert (await ledger.view(bank)).status == Status.FROZEN_ALL
    await ledger.freeze(bank, Status.OPEN)
    outcomes = await ledger.post(*(transfer(bank, accounts[0], 1) for accounts in by_shard.values()))
    assert codes(outcomes) == ["posted"] * 3
    assert code(await ledger.freeze(bank, Status.CLOSED)) == "account-not-empty"
    await ledger.prove()
