"""Batches that are prepared while the previous batch is written: they are sent only if the previous one committed."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement

from fundledger.faults import Fault
from fundledger.ledger import optimistic as unlocked
from fundledger.ledger import posting
from fundledger.ledger.model.batch import Command, Outcome
from fundledger.ledger.optimistic import Prepared, prepare
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.rules import decide as rules
from tests.support.halfway import is_waiting_for_a_lock
from tests.support.ledger import Ledger, code, codes, new_id, posted, transfer
from tests.support.waiting import eventually


class Pair:
    """Two batches of one lane. The second is prepared after the first was sent."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.prepared: Prepared | None = None

    async def post(self, first: Sequence[Command], second: Sequence[Command]) -> list[Outcome | Fault]:
        session, books = self.ledger.session, self.ledger.books
        preparing: list[asyncio.Task[Prepared | None]] = []

        def on_sent(may_prepare: bool) -> None:
            if may_prepare:
                preparing.append(asyncio.create_task(prepare(session, books, second)))

        outcomes = await post_vouchers(session, books, first, on_sent)
        self.prepared = await preparing[0] if preparing else None
        return outcomes + await post_vouchers(session, books, second, prepared=self.prepared)


@pytest.mark.parametrize("believed", [True, False], ids=["remembered", "read now"])
async def test_a_batch_is_decided_upon_what_the_one_before_will_leave(ledger: Ledger, believed: bool) -> None:
    """The first batch credits the amount that the second batch debits."""
    bank, a, b = await ledger.account("bank", "bank"), await ledger.account("m:1"), await ledger.account("m:2")
    for _ in range(3 if believed else 0):
        await ledger.post(transfer(bank, a, 1), transfer(a, b, 1))
    pair = Pair(ledger)
    for _ in range(5):
        assert codes(await pair.post([transfer(bank, a, 10)], [transfer(a, b, 10)])) == ["posted", "posted"]
        assert pair.prepared is not None, "nothing was prepared"
    assert await ledger.posted(a) == 0
    assert (await ledger.prove()).ok


async def test_what_was_prepared_upon_a_batch_that_failed_is_decided_again(ledger: Ledger) -> None:
    a, b, c = await ledger.account("m:1", balance=10), await ledger.account("m:2"), await ledger.account("m:3")
    other = await ledger.worker(1)
    for _ in range(3):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    assert posted(await other.post_one(transfer(a, c, 3)))
    pair = Pair(ledger)
    assert codes(await pair.post([transfer(a, b, 4)], [transfer(a, b, 3)])) == ["posted", "insufficient-funds"]
    assert pair.prepared is not None, "nothing was prepared"
    assert (await ledger.posted(a), await ledger.posted(b)) == (0, 7)
    assert (await ledger.prove()).ok


async def test_a_cut_while_the_next_one_is_prepared_loses_and_doubles_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    for _ in range(3):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    real, cuts = PreparedStatement.fetch, []

    async def fetch(self, *arguments, **more):
        rows = await real(self, *arguments, **more)
        if self is ledger.session._unlocked_write and not cuts:
            cuts.append(1)
            ledger.session._unlocked.terminate()
            raise ConnectionResetError("cut")
        return rows

    monkeypatch.setattr(PreparedStatement, "fetch", fetch)
    pair = Pair(ledger)
    outcomes = await pair.post([transfer(a, b, 1)], [transfer(a, b, 1), transfer(a, b, 1)])
    assert cuts
    assert codes(outcomes) == ["posted"] * 3
    assert [outcome.replay for outcome in outcomes] == [False] * 3
    assert await ledger.posted(b) == 6
    assert (await ledger.prove()).ok


async def test_an_id_in_both_is_posted_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    for _ in range(3):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    same = transfer(a, b, 5, id_=new_id())
    outcomes = await Pair(ledger).post([same], [transfer(a, b, 5, id_=same.id)])
    assert [outcome.replay for outcome in outcomes] == [False, True]
    assert await ledger.posted(b) == 8
    assert (await ledger.prove()).ok


async def test_a_refusal_while_preparing_leaves_the_batch_that_is_being_written_alone(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    for _ in range(3):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    outcomes = await Pair(ledger).post([transfer(a, b, 90)], [transfer(a, b, 8), transfer(a, b, 7)])
    assert codes(outcomes) == ["posted", "insufficient-funds", "posted"]
    assert (await ledger.posted(a), await ledger.posted(b)) == (0, 100)
    assert (await ledger.prove()).ok


async def test_halves_of_a_batch_that_failed_are_decided_under_locks(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write cache may contain the result of another batch that was prepared and not written."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    for _ in range(3):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    real, prepared = posting.prepare, []

    async def counted(session, books, commands):
        prepared.append(len(commands))
        return await real(session, books, commands)

    real_decide = rules.decide

    def decide(batch, commands):
        if any(command.type == "poison" for command in commands):
            raise ZeroDivisionError
        return real_decide(batch, commands)

    monkeypatch.setattr(posting, "prepare", counted)
    monkeypatch.setattr(posting, "decide", decide)
    monkeypatch.setattr(unlocked, "decide", decide)
    batch = [transfer(a, b, 1, type_="poison" if i == 2 else "pay") for i in range(6)]
    assert codes(await ledger.post(*batch)) == ["posted"] * 2 + ["GuardHit"] + ["posted"] * 3
    assert prepared == [6]
    assert (await ledger.prove()).ok


async def test_preparing_that_is_cancelled_leaves_nothing_behind(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    locker = await asyncpg.connect(ledger.dsn)
    try:
        async with locker.transaction():
            await locker.execute("LOCK TABLE ledger.sub_accounts IN ACCESS EXCLUSIVE MODE")
            task = asyncio.create_task(prepare(ledger.session, ledger.books, [transfer(a, b, 1)]))
            await eventually(lambda: is_waiting_for_a_lock(ledger), "the read waits")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        await locker.close()
    assert code(await ledger.post_one(transfer(a, b, 100))) == "posted"
    assert code(await ledger.post_one(transfer(a, b, 1))) == "insufficient-funds"
    assert (await ledger.prove()).ok
