"""`post_vouchers` on a real Postgres: one transaction a batch, exactly once, and no item harms another."""

import asyncio
import json
from collections import Counter

import asyncpg
import pytest

from fundledger.ledger import clock, posting
from fundledger.ledger.account import BALANCE_MAX, Status
from fundledger.ledger.accounts import NewAccount, open_accounts
from fundledger.ledger.batch import AtomicGroup, Outcome, SetStatus
from fundledger.ledger.directory import AccountTampered, Directory
from fundledger.ledger.fault import GuardHit, Unavailable
from fundledger.ledger.hold import HoldStatus, PlaceHold
from fundledger.ledger.refusal import Code
from fundledger.ledger.voucher import AMOUNT_MAX
from fundledger.reconciliation.checks import verify
from fundledger.security.keys import FileKeys
from tests.support.halfway import Halfway, is_waiting_for_a_lock, overtaken
from tests.support.ledger import (
    Ledger,
    capture,
    code,
    codes,
    expire,
    new_id,
    posted,
    release,
    reversal,
    together,
    transfer,
    voucher,
)
from tests.support.waiting import eventually

# --- One batch ------------------------------------------------------------------------------------------------------


async def test_a_voucher_moves_balances_and_writes_one_entry_a_line(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    payment = transfer(a, b, 30, reference="order 7", metadata='{"k":1}')
    outcome = await ledger.post_one(payment)
    assert posted(outcome) and not outcome.replay
    assert (await ledger.posted(a), await ledger.posted(b)) == (70, 30)
    rows = await ledger.connection.fetch("SELECT * FROM ledger.entries WHERE voucher_id = $1", payment.id)
    written = {row["account_number"]: (row["amount"], row["balance_after"], row["seq"]) for row in rows}
    assert written == {a.number: (-30, 70, 2), b.number: (30, 30, 1)}
    record = await ledger.record(payment.id)
    assert (record.reference, record.metadata, record.refusal) == ("order 7", '{"k":1}', None)
    assert record.lines == payment.lines
    await ledger.prove()


async def test_a_batch_is_one_transaction(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.post(*(transfer(a, b, 1) for _ in range(20)))
    query = "SELECT count(DISTINCT xmin::text), count(DISTINCT batch) FROM ledger.vouchers WHERE lines[1] = $1"
    assert tuple(await ledger.connection.fetchrow(query, a.number)) == (1, 1)
    assert (await ledger.view(a)).version == 2
    await ledger.prove()


@pytest.mark.parametrize("size", [1, 2, 7, 64, 500])
async def test_a_mixed_batch_answers_each_command_in_its_place(ledger: Ledger, size: int) -> None:
    a, b = await ledger.account("m:1", balance=10_000), await ledger.account("m:2")
    poor = await ledger.account("m:3")
    kinds = {
        "posted": lambda: transfer(a, b, 1),
        "insufficient-funds": lambda: transfer(poor, b, 1),
        "voucher-unbalanced": lambda: voucher((a, -1), (b, 2)),
        "account-not-found": lambda: voucher(unknown="m:nobody"),
    }
    expected = [list(kinds)[i % len(kinds)] for i in range(size)]
    outcomes = await ledger.post(*(kinds[kind]() for kind in expected))
    assert codes(outcomes) == expected
    assert await ledger.posted(b) == Counter(expected)["posted"]
    await ledger.prove()


async def test_an_empty_batch_is_answered_with_nothing(ledger: Ledger) -> None:
    assert await ledger.post() == []


async def test_a_voucher_of_64_lines_and_the_largest_amounts_is_exact(ledger: Ledger) -> None:
    bank, rich = await ledger.account("bank", "bank"), await ledger.account("m:1")
    lines = [(bank, -AMOUNT_MAX), (rich, AMOUNT_MAX)] * 32
    assert posted(await ledger.post_one(voucher(*lines)))
    assert await ledger.posted(rich) == 32 * AMOUNT_MAX
    await ledger.prove()


async def test_a_balance_stops_before_it_is_not_exact(ledger: Ledger) -> None:
    bank, rich = await ledger.account("bank", "bank"), await ledger.account("m:1")
    most = [(bank, -AMOUNT_MAX), (rich, AMOUNT_MAX)] * 32
    rounds = BALANCE_MAX // (32 * AMOUNT_MAX) + 1
    outcomes = await ledger.post(*(voucher(*most) for _ in range(rounds)))
    assert Counter(codes(outcomes)) == {"posted": rounds - 1, "balance-out-of-range": 1}
    await ledger.prove()


async def test_an_account_takes_part_more_than_once_in_a_voucher(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    assert posted(await ledger.post_one(voucher((a, -4), (b, 10), (a, -6))))
    assert await ledger.posted(a) == 0
    await ledger.prove()


# --- Once, for ever -------------------------------------------------------------------------------------------------


async def test_a_final_refusal_is_recorded_and_a_repeat_gets_it_even_when_money_came_in(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=5), await ledger.account("m:2", balance=100)
    late = transfer(a, b, 10)
    assert code(await ledger.post_one(late)) == "insufficient-funds"
    record = await ledger.record(late.id)
    assert record is not None
    assert record.refusal.code == Code.INSUFFICIENT_FUNDS
    await ledger.post(transfer(b, a, 50))
    again = await ledger.post_one(transfer(a, b, 10, id_=late.id))
    assert (code(again), again.replay) == ("insufficient-funds", True)
    assert await ledger.posted(a) == 55
    await ledger.prove()


async def test_an_id_that_was_refused_for_its_shape_may_be_used_again(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    dollars = await ledger.account("m:usd", currency="USD")
    id_ = new_id()
    refused = [
        voucher((a, -1), (b, 2), id_=id_),
        voucher(unknown="m:none", id_=id_),
        transfer(a, dollars, 1, id_=id_),
        transfer(a, b, 1, id_=id_, hold_id="nowhere"),
    ]
    outcomes = await ledger.post(*refused)
    assert codes(outcomes) == ["voucher-unbalanced", "account-not-found", "currency-mismatch", "hold-not-found"]
    assert await ledger.record(id_) is None
    assert posted(await ledger.post_one(transfer(a, b, 1, id_=id_)))


async def test_a_repeat_gets_the_first_answer_and_writes_nothing(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    first = await ledger.post_one(transfer(a, b, 30, reference="x"))
    before = await ledger.state()
    again = await ledger.post_one(transfer(a, b, 30, id_=first.record.id, reference="x"))
    assert again.replay
    assert again.record == first.record
    assert await ledger.state() == before


@pytest.mark.parametrize(
    "other",
    ["amount", "accounts", "order of lines", "type", "reference", "no reference", "metadata", "hold", "reverses"],
)
async def test_an_id_with_other_content_is_refused_and_writes_nothing(ledger: Ledger, other: str) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3")
    first = voucher((a, -10), (b, 10), reference="r", metadata='{"k":1}')
    same = {"id_": first.id, "reference": "r", "metadata": '{"k":1}'}
    await ledger.post(first)
    before = await ledger.state()
    differs = {
        "amount": lambda: transfer(a, b, 11, **same),
        "accounts": lambda: transfer(a, c, 10, **same),
        "order of lines": lambda: voucher((b, 10), (a, -10), **same),
        "type": lambda: transfer(a, b, 10, **same, type_="refund"),
        "reference": lambda: transfer(a, b, 10, **{**same, "reference": "s"}),
        "no reference": lambda: transfer(a, b, 10, **{**same, "reference": None}),
        "metadata": lambda: transfer(a, b, 10, **{**same, "metadata": '{"k":2}'}),
        "hold": lambda: transfer(a, b, 10, **same, hold_id="h"),
        "reverses": lambda: transfer(a, b, 10, **same, reverses=new_id()),
    }[other]()
    assert code(await ledger.post_one(differs)) == "voucher-id-reused"
    assert await ledger.state() == before


async def test_duplicates_inside_a_batch_are_posted_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    id_ = new_id()
    outcomes = await ledger.post(*(transfer(a, b, 10, id_=id_) for _ in range(3)), transfer(a, b, 11, id_=id_))
    assert codes(outcomes) == ["posted", "posted", "posted", "voucher-id-reused"]
    assert [outcome.replay for outcome in outcomes[:3]] == [False, True, True]
    assert await ledger.posted(b) == 10
    await ledger.prove()


async def test_a_duplicate_that_another_worker_is_about_to_commit_is_decided_again(ledger: Ledger) -> None:
    """Both touch platform accounts only, each its own slots: nothing but the id makes one wait for the other."""
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    id_ = new_id()
    other = await ledger.worker(1)
    async with overtaken(ledger, transfer(bank, fees, 5, id_=id_), other, transfer(bank, fees, 5, id_=id_)) as outcomes:
        assert codes(outcomes) == ["posted", "posted"]
        assert [outcome.replay for outcome in outcomes] == [False, True]
        assert outcomes[0].record == outcomes[1].record
    assert await ledger.posted(fees) == 5
    await ledger.prove()


async def test_a_duplicate_with_other_content_that_overtakes_is_told(ledger: Ledger) -> None:
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    id_ = new_id()
    other = await ledger.worker(1)
    async with overtaken(ledger, transfer(bank, fees, 5, id_=id_), other, transfer(bank, fees, 6, id_=id_)) as outcomes:
        assert codes(outcomes) == ["posted", "voucher-id-reused"]
    assert await ledger.posted(fees) == 5


async def test_one_id_from_many_workers_at_once_is_posted_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    workers = [await ledger.worker(i) for i in range(4)]
    for _ in range(10):
        id_ = new_id()
        outcomes = [o[0] for o in await together(*(w.post(transfer(a, b, 1, id_=id_)) for w in workers))]
        assert codes(outcomes) == ["posted"] * 4
        assert sorted(outcome.replay for outcome in outcomes) == [False, True, True, True]
    assert await ledger.posted(b) == 10
    await ledger.prove()


async def test_a_batch_that_met_a_duplicate_still_posts_its_others(ledger: Ledger) -> None:
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    a = await ledger.account("m:1", balance=10)
    id_ = new_id()
    other = await ledger.worker(1)
    halfway = Halfway(ledger)
    await halfway.write(transfer(bank, fees, 5, id_=id_))
    waiting = asyncio.create_task(
        other.post(transfer(a, fees, 1), transfer(bank, fees, 5, id_=id_), transfer(a, fees, 100))
    )
    await eventually(lambda: is_waiting_for_a_lock(ledger), "the other worker waits")
    await halfway.commit()
    outcomes = await waiting
    assert codes(outcomes) == ["posted", "posted", "insufficient-funds"]
    assert [outcome.replay for outcome in outcomes] == [False, True, False]
    assert await ledger.posted(fees) == 6
    await ledger.prove()


# --- Workers beside each other --------------------------------------------------------------------------------------


async def test_a_worker_that_waited_decides_over_what_the_other_left(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    other = await ledger.worker(1)
    async with overtaken(ledger, transfer(a, b, 10), other, transfer(a, b, 10)) as outcomes:
        assert codes(outcomes) == ["posted", "insufficient-funds"]
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
    assert posted(await other.post_one(transfer(bank, fees, 1)))  # would wait for the lock time-out otherwise
    await halfway.commit()
    assert await ledger.posted(fees) == 2
    await ledger.prove()


# --- Shards ---------------------------------------------------------------------------------------------------------


async def accounts_by_shard(ledger: Ledger, balance: int = 0) -> dict[int, list]:
    """Two merchants in each shard."""
    found: dict[int, list] = {shard: [] for shard in range(ledger.layout.shards)}
    i = 0
    while any(len(accounts) < 2 for accounts in found.values()):
        account = await ledger.account(f"m:{i}", balance=balance)
        found[account.shard].append(account)
        i += 1
    return found


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


# --- An item that the database does not take ------------------------------------------------------------------------


@pytest.mark.parametrize("at", [[0], [4], [8], [2, 6], [0, 1, 2]])
async def test_an_item_that_the_database_refuses_stands_alone(ledger: Ledger, at: list[int]) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.connection.execute("ALTER TABLE ledger.vouchers ADD CONSTRAINT poison CHECK (type <> 'poison')")
    batch = [transfer(a, b, 1, type_="poison" if i in at else "pay") for i in range(9)]
    outcomes = await ledger.post(*batch)
    assert [isinstance(outcome, GuardHit) for outcome in outcomes] == [i in at for i in range(9)]
    assert codes([outcome for i, outcome in enumerate(outcomes) if i not in at]) == ["posted"] * (9 - len(at))
    assert await ledger.posted(b) == 9 - len(at)
    for i in at:
        assert await ledger.record(batch[i].id) is None
    await ledger.prove()


async def test_an_item_that_is_refused_at_the_commit_stands_alone(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.connection.execute(
        """
        CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.type = 'poison' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON ledger.vouchers DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION poison();
        """
    )
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 1, type_="poison"), transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "GuardHit", "posted"]
    assert await ledger.posted(b) == 2
    await ledger.prove()


async def test_a_guard_of_the_database_stops_what_the_rules_let_through(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=10)
    monkeypatch.setattr("fundledger.ledger.rules._funds_refusal", lambda *_: None)
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 11), transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "GuardHit", "posted"]
    await ledger.prove()


async def test_what_a_client_may_send_never_breaks_the_batch_of_others(ledger: Ledger) -> None:
    """Text that Postgres does not take is refused by itself, whatever let it through."""
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    bad = [transfer(a, b, 1, reference="a\0b"), transfer(a, b, 1, metadata="{")]
    outcomes = await ledger.post(transfer(a, b, 1), *bad, transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "GuardHit", "GuardHit", "posted"]
    assert await ledger.posted(b) == 2
    await ledger.prove()


# --- Connections that break -----------------------------------------------------------------------------------------


async def cut(ledger: Ledger) -> None:
    """End the lane's connection from the other side."""
    name = ledger.session._name
    await ledger.connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", name
    )


async def test_a_connection_that_broke_between_batches_is_replaced(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await cut(ledger)
    outcome = await ledger.post_one(transfer(a, b, 1))
    assert posted(outcome) and not outcome.replay
    await ledger.prove()


async def test_a_connection_that_broke_before_the_commit_posts_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    real, cuts = posting._write, []

    async def write(*arguments):
        await real(*arguments)
        if not cuts:
            cuts.append(1)
            await cut(ledger)

    monkeypatch.setattr(posting, "_write", write)
    outcome = await ledger.post_one(transfer(a, b, 1))
    assert cuts
    assert posted(outcome) and not outcome.replay
    assert await ledger.posted(b) == 1
    await ledger.prove()


async def test_a_connection_that_broke_after_the_commit_posts_once_and_is_no_replay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit succeeded and nobody heard of it: the one who asked first is told that it is new."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    real, cuts = asyncpg.Connection.execute, []

    async def execute(self, query, *arguments, **more):
        done = await real(self, query, *arguments, **more)
        if query == posting.COMMIT and not cuts:
            cuts.append(1)
            self.terminate()
            raise ConnectionResetError("cut after the commit")
        return done

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 1000))
    assert cuts
    assert codes(outcomes) == ["posted", "insufficient-funds"]
    assert [outcome.replay for outcome in outcomes] == [False, False]
    assert await ledger.posted(b) == 1
    await ledger.prove()


async def test_a_database_that_does_not_come_back_is_an_unknown_outcome_only_after_the_commit_was_sent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    monkeypatch.setattr(posting, "RETRY_FOR_S", 0.0)

    async def unreachable() -> None:
        raise ConnectionRefusedError("gone")

    ledger.session.drop()
    monkeypatch.setattr(ledger.session, "open", unreachable)
    assert codes(await ledger.post(transfer(a, b, 1), transfer(a, b, 1))) == ["Unavailable", "Unavailable"]
    monkeypatch.undo()
    monkeypatch.setattr(posting, "RETRY_FOR_S", 0.0)
    real = asyncpg.Connection.execute

    async def execute(self, query, *arguments, **more):
        if query == posting.COMMIT:
            self.terminate()
            monkeypatch.setattr(ledger.session, "open", unreachable)
            raise ConnectionResetError("cut before the commit")
        return await real(self, query, *arguments, **more)

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    assert codes(await ledger.post(transfer(a, b, 1))) == ["OutcomeUnknown"]
    monkeypatch.undo()
    assert await ledger.posted(b) == 0
    await ledger.prove()


async def test_a_missing_key_is_a_fault_and_freezes_nobody(ledger: Ledger, tmp_path) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.tamper("UPDATE ledger.sub_accounts SET key_version = 9 WHERE account_number = $1", a.number)
    before = await ledger.state()
    assert [type(o) for o in await ledger.post(transfer(a, b, 1))] == [Unavailable]
    assert await ledger.state() == before


# --- Time -----------------------------------------------------------------------------------------------------------


async def test_posted_at_never_falls_along_a_sub_account(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    start = clock.now_us()
    for offset in (50_000_000, 20_000_000, -3_000_000, 60_000_000):
        monkeypatch.setattr(clock, "now_us", lambda offset=offset: start + offset)
        await ledger.post(transfer(a, b, 1))
    rows = await ledger.connection.fetch(
        "SELECT posted_at FROM ledger.entries WHERE account_number = $1 ORDER BY seq", b.number
    )
    times = [clock.us(row["posted_at"]) - start for row in rows]
    assert times == [50_000_000, 50_000_000, 50_000_000, 60_000_000]
    await ledger.prove()


# --- Opening accounts -----------------------------------------------------------------------------------------------


async def test_an_account_is_opened_once_and_the_same_request_finds_it(ledger: Ledger) -> None:
    first = await ledger.open("m:1", owner="o", metadata='{"a":1}')
    again = await ledger.open("m:1", owner="o", metadata='{"a":1}')
    assert (first.created, first.same) == (True, True)
    assert (again.created, again.same) == (False, True)
    assert again.view == first.view


@pytest.mark.parametrize(
    "other",
    [{"owner": "p"}, {"type_": "merchant_pending"}, {"currency": "USD"}, {"metadata": '{"a":2}'}, {"metadata": None}],
)
async def test_an_account_that_exists_and_differs_is_told_and_left_alone(ledger: Ledger, other: dict) -> None:
    asked = {"id_": "m:1", "type_": "merchant_available", "owner": "o", "currency": "CNY", "metadata": '{"a":1}'}
    first = await ledger.open(**asked)
    before = await ledger.state()
    again = await ledger.open(**{**asked, **other})
    assert (again.created, again.same) == (False, False)
    assert again.view == first.view
    assert await ledger.state() == before


async def test_an_account_that_several_open_at_once_is_opened_by_one(ledger: Ledger) -> None:
    workers = [await ledger.worker(i) for i in range(6)]
    for i in range(5):
        opened = await together(*(w.open(f"m:{i}", owner="o") for w in workers))
        assert sorted(o.created for o in opened) == [False] * 5 + [True]
        assert all(o.same for o in opened)
        assert len({o.view.account.number for o in opened}) == 1
    await ledger.prove()


async def test_accounts_opened_in_opposite_orders_do_not_deadlock(ledger: Ledger, postgres) -> None:
    workers = [await ledger.worker(i) for i in range(4)]
    requests = [NewAccount(f"m:{i}", "o", "merchant_available", "CNY") for i in range(50)]
    logged = len(postgres.log.read_bytes())

    async def opening(worker: Ledger, order: list[NewAccount]) -> list:
        return await open_accounts(worker.connection, worker.directory, worker.keys, worker.layout, order)

    answers = await together(*(opening(w, requests if i % 2 else requests[::-1]) for i, w in enumerate(workers)))
    assert sum(o.created for opened in answers for o in opened) == 50
    assert b"deadlock" not in postgres.log.read_bytes()[logged:]
    await ledger.prove()


async def test_of_two_requests_with_one_id_the_first_opens_it(ledger: Ledger) -> None:
    requests = [NewAccount("m:1", owner, "merchant_available", "CNY") for owner in ("o", "p", "o")]
    opened = await open_accounts(ledger.connection, ledger.directory, ledger.keys, ledger.layout, requests)
    assert [(o.created, o.same) for o in opened] == [(True, True), (False, False), (False, True)]


# --- Holds ----------------------------------------------------------------------------------------------------------


async def test_a_hold_sets_money_aside_until_it_ends(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    one, two = await ledger.hold("h:1", a, 60), await ledger.hold("h:2", a, 30)
    view = await ledger.view(a)
    assert (view.posted, view.held, view.available) == (100, 90, 10)
    assert code(await ledger.post_one(transfer(a, b, 11))) == "insufficient-funds"
    assert posted(await ledger.post_one(capture(one, b, 50)))
    assert (await ledger.post_one(release(two))).hold.status == HoldStatus.RELEASED
    view = await ledger.view(a)
    assert (view.posted, view.held) == (50, 0)
    assert (await ledger.read_hold("h:1")).captured == 50
    await ledger.prove()


async def test_a_hold_expires_once_its_time_is_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    start = clock.now_us()
    hold = await ledger.hold("h", a, 60, expires_at_us=start + 60_000_000)
    await ledger.post(expire(hold))
    assert (await ledger.view(a)).held == 60
    monkeypatch.setattr(clock, "now_us", lambda: start + 60_000_000)
    assert code(await ledger.post_one(capture(hold, b, 1))) == "hold-expired"
    await ledger.post(expire(hold), expire(hold))
    assert (await ledger.view(a)).held == 0
    assert (await ledger.read_hold("h")).status == HoldStatus.EXPIRED
    await ledger.prove()


async def test_a_refused_hold_is_recorded_and_stays_refused(ledger: Ledger) -> None:
    a = await ledger.account("m:1", balance=5)
    assert code(await ledger.post_one(PlaceHold("h", a, 10, 0))) == "insufficient-funds"
    await ledger.account("m:2", balance=1)
    bank = (await ledger.open("bank:funding:CNY", "bank")).view.account
    await ledger.post(transfer(bank, a, 50))
    again = await ledger.post_one(PlaceHold("h", a, 10, 0))
    assert (code(again), again.replay) == ("insufficient-funds", True)
    assert (await ledger.view(a)).held == 0
    await ledger.prove()


async def test_a_hold_id_that_another_account_is_about_to_use_is_decided_again(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2", balance=100)
    other = await ledger.worker(1)
    async with overtaken(ledger, PlaceHold("h", a, 10, 0), other, PlaceHold("h", b, 10, 0)) as outcomes:
        assert codes(outcomes) == ["posted" if o.refusal is None else o.refusal.code for o in outcomes]
        assert outcomes[0].refusal is None
        assert code(outcomes[1]) == "hold-id-reused"
    assert [(await ledger.view(x)).held for x in (a, b)] == [10, 0]
    await ledger.prove()


async def test_a_capture_and_a_release_at_once_end_a_hold_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.worker(1)
    for i in range(10):
        hold = await ledger.hold(f"h:{i}", a, 5)
        captured, released = await together(ledger.post_one(capture(hold, b, 5)), other.post_one(release(hold)))
        assert {code(captured), released.refusal and code(released)} in (
            {"posted", "hold-captured"},
            {"hold-released", None},
        )
    assert (await ledger.view(a)).held == 0
    await ledger.prove()


@pytest.mark.layout(shards=4, platform_slots=2)
async def test_a_capture_pays_into_another_shard(ledger: Ledger) -> None:
    by_shard = await accounts_by_shard(ledger, balance=100)
    a, b = by_shard[3][0], by_shard[1][0]
    hold = await ledger.hold("h", a, 60)
    payment = voucher((b, 50), (a, -50), hold=hold)
    assert payment.shard == 1
    assert posted(await ledger.post_one(payment))
    view = await ledger.view(a)
    assert (view.posted, view.held) == (50, 0)
    await ledger.prove()


async def test_a_tampered_hold_is_refused_by_itself(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    hold = await ledger.hold("h", a, 10)
    await ledger.tamper("UPDATE ledger.holds SET amount = 90 WHERE id = 'h'")
    outcomes = await ledger.post(transfer(a, b, 1), capture(hold, b, 80), release(hold), transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "account-frozen", "posted"]
    assert await ledger.posted(b) == 2


# --- Reversals ------------------------------------------------------------------------------------------------------


async def test_a_reversal_gives_everything_back_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    bank = (await ledger.open("bank:funding:CNY", "bank")).view.account
    payment = voucher((a, -30), (b, 20), (bank, 10))
    await ledger.post(payment)
    first = reversal(payment)
    assert posted(await ledger.post_one(first))
    assert (await ledger.posted(a), await ledger.posted(b)) == (100, 0)
    assert code(await ledger.post_one(reversal(payment))) == "voucher-already-reversed"
    assert (await ledger.post_one(reversal(payment, id_=first.id))).replay
    await ledger.prove()


async def test_a_second_reversal_is_refused_also_when_both_come_at_once(ledger: Ledger) -> None:
    """On platform accounts two workers take different slots: only the index on what is reversed keeps them apart."""
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    payment = transfer(bank, fees, 30)
    await ledger.post(payment)
    other = await ledger.worker(1)
    async with overtaken(ledger, reversal(payment), other, reversal(payment)) as outcomes:
        assert codes(outcomes) == ["posted", "voucher-already-reversed"]
    assert await ledger.posted(fees) == 0
    await ledger.prove()


# --- Atomic groups --------------------------------------------------------------------------------------------------


async def test_an_atomic_group_posts_all_or_none(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    good = [transfer(a, b, 2) for _ in range(3)]
    assert codes((await ledger.post_one(AtomicGroup(good))).parts) == ["posted"] * 3
    bad = [transfer(a, b, 2), transfer(a, b, 5), transfer(a, b, 1)]
    outcomes = await ledger.post(AtomicGroup(bad), transfer(a, b, 4))
    assert codes(outcomes[0].parts) == ["batch-aborted", "insufficient-funds", "batch-aborted"]
    assert codes(outcomes[1:]) == ["posted"]
    assert [await ledger.record(v.id) is None for v in bad] == [True, False, True]
    assert posted(await ledger.post_one(transfer(b, a, 1, id_=bad[0].id)))
    await ledger.prove()


# --- Tampering ------------------------------------------------------------------------------------------------------

EDITS = {
    "posted": "posted = posted + 1000",
    "held": "held = held + 1",
    "version": "version = version + 1",
    "seq": "seq = seq - 1",
    "posted_at_us": "posted_at_us = posted_at_us - 1",
    "status": "status = 1",
    "last_entry_mac": "last_entry_mac = decode(repeat('00', 32), 'hex')",
    "mac": "mac = decode(repeat('00', 32), 'hex')",
}


@pytest.mark.parametrize("edited", EDITS)
async def test_a_sub_account_that_was_edited_is_refused_frozen_and_kept_as_evidence(
    ledger: Ledger, edited: str
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2", balance=100)
    c = await ledger.account("m:3")
    old = dict(
        await ledger.connection.fetchrow("SELECT * FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    )
    await ledger.tamper(f"UPDATE ledger.sub_accounts SET {EDITS[edited]} WHERE account_number = $1", a.number)
    found = await ledger.connection.fetchrow("SELECT * FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    outcomes = await ledger.post(transfer(b, c, 1), transfer(a, c, 1), transfer(b, a, 1), transfer(b, c, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "account-frozen", "posted"]
    assert (await ledger.posted(b), await ledger.posted(c)) == (98, 2)
    assert (await ledger.view(a)).status == Status.FROZEN_INTEGRITY
    finding = await ledger.connection.fetchrow("SELECT * FROM ledger.integrity_findings")
    assert (finding["account_number"], finding["slot"]) == (a.number, 0)
    evidence = json.loads(finding["evidence"])
    assert evidence[edited] == (found[edited].hex() if isinstance(found[edited], bytes) else found[edited])
    assert evidence["mac"] == found["mac"].hex()
    # Putting the value back does not thaw it: the row now says frozen, and its MAC covers that.
    await ledger.tamper(
        f"UPDATE ledger.sub_accounts SET {edited} = $2 WHERE account_number = $1", a.number, old[edited]
    )
    outcomes = await ledger.post(transfer(a, c, 1), transfer(b, c, 1))
    assert codes(outcomes) == ["account-frozen", "posted"]
    assert code(await ledger.freeze(a, Status.OPEN)) == "account-frozen"
    assert not (await verify(ledger.dsn, ledger.keys)).ok


async def test_a_row_copied_from_another_account_is_refused(ledger: Ledger) -> None:
    rich, poor = await ledger.account("m:1", balance=1000), await ledger.account("m:2", balance=1)
    await ledger.tamper(
        """
        UPDATE ledger.sub_accounts s SET posted = r.posted, held = r.held, version = r.version, seq = r.seq,
            posted_at_us = r.posted_at_us, status = r.status, key_version = r.key_version,
            last_entry_mac = r.last_entry_mac, mac = r.mac
        FROM ledger.sub_accounts r WHERE r.account_number = $1 AND s.account_number = $2
        """,
        rich.number,
        poor.number,
    )
    assert code(await ledger.post_one(transfer(poor, rich, 500))) == "account-frozen"


async def test_a_row_put_back_to_what_it_was_before_its_last_payment_moves_nothing(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    old = dict(
        await ledger.connection.fetchrow("SELECT * FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    )
    await ledger.post(transfer(a, b, 100))
    changed = ("posted", "held", "version", "seq", "posted_at_us", "status", "last_entry_mac", "mac")
    assignments = ", ".join(f"{name} = ${i}" for i, name in enumerate(changed, 2))
    await ledger.tamper(
        f"UPDATE ledger.sub_accounts SET {assignments} WHERE account_number = $1", a.number, *(old[n] for n in changed)
    )
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 100), transfer(c, b, 1))
    assert codes([outcomes[0], outcomes[2]]) == ["posted", "posted"]
    assert not posted(outcomes[1])
    assert await ledger.posted(b) == 102
    report = await verify(ledger.dsn, ledger.keys)
    assert {check.name for check in report.checks if not check.ok} >= {"balance_equals_entries"}


async def test_a_sub_account_that_was_deleted_hurts_no_neighbour(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    await ledger.tamper("DELETE FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 1), transfer(c, b, 1))
    assert codes([outcomes[0], outcomes[2]]) == ["posted", "posted"]
    assert not posted(outcomes[1])
    assert await ledger.posted(b) == 2


async def test_a_release_does_not_launder_a_row_that_was_edited(ledger: Ledger) -> None:
    a = await ledger.account("m:1", balance=100)
    hold = await ledger.hold("h", a, 10)
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = posted + 1000 WHERE account_number = $1", a.number)
    assert code(await ledger.post_one(release(hold))) == "account-frozen"
    assert (await ledger.view(a)).status == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1


async def test_an_expiry_does_not_launder_a_row_that_was_edited(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await ledger.account("m:1", balance=100)
    hold = await ledger.hold("h", a, 10, expires_at_us=clock.now_us() + 60_000_000)
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = posted + 1000 WHERE account_number = $1", a.number)
    monkeypatch.setattr(clock, "now_us", lambda: hold.expires_at_us)
    await ledger.post(expire(hold))
    assert (await ledger.view(a)).status == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1


@pytest.mark.parametrize("status", [Status.FROZEN_DEBITS, Status.OPEN, Status.CLOSED])
async def test_a_change_of_status_does_not_launder_a_row_that_was_edited(ledger: Ledger, status: Status) -> None:
    a = await ledger.account("m:1", balance=100)
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = 0 WHERE account_number = $1", a.number)
    assert code(await ledger.freeze(a, status)) == "account-frozen"
    assert (await ledger.view(a)).status == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1


@pytest.mark.parametrize("column", ["owner", "type", "currency", "id", "metadata"])
async def test_an_account_whose_record_was_edited_is_refused(ledger: Ledger, column: str) -> None:
    await ledger.account("m:1", balance=100, metadata='{"a":1}')
    value = {"owner": "thief", "type": "bank", "currency": "USD", "id": "m:9", "metadata": '{"a":2}'}[column]
    await ledger.tamper(f"UPDATE ledger.accounts SET {column} = $1 WHERE id = 'm:1'", value)
    with pytest.raises(AccountTampered):
        await Directory(ledger.keys).resolve(ledger.connection, ["m:1", "m:9"])
    report = await verify(ledger.dsn, ledger.keys)
    assert "mac_verifies_accounts" in {check.name for check in report.checks if not check.ok}


async def test_a_replay_that_names_a_tampered_account_hurts_no_neighbour(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    old = transfer(a, b, 1)
    await ledger.post(old)
    await ledger.tamper("UPDATE ledger.accounts SET owner = 'thief' WHERE id = 'm:1'")
    outcomes = await ledger.post(transfer(c, b, 1), old, transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "posted"]


# --- The record of a freeze -----------------------------------------------------------------------------------------


async def test_a_change_of_status_is_recorded_with_who_and_why(ledger: Ledger) -> None:
    a = await ledger.account("m:1")
    await ledger.post(SetStatus(a, Status.FROZEN_DEBITS, "court order 7", "compliance"))
    await ledger.post(SetStatus(a, Status.FROZEN_DEBITS, "again", "compliance"))
    rows = await ledger.connection.fetch("SELECT account_number, status, reason, module FROM ledger.account_events")
    assert [tuple(row) for row in rows] == [(a.number, Status.FROZEN_DEBITS, "court order 7", "compliance")]
    await ledger.prove()


async def test_an_outcome_is_an_outcome(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=1), await ledger.account("m:2")
    assert all(isinstance(o, Outcome) for o in await ledger.post(transfer(a, b, 1), transfer(a, b, 1)))


def test_the_keys_of_a_run_are_their_own(keys: FileKeys, tmp_path) -> None:
    assert FileKeys(tmp_path).current.tag(b"x") != keys.current.tag(b"x")
