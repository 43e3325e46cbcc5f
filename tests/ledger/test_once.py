"""Replays: a voucher id is posted at most once, and each later request with it gets the first outcome."""

import asyncio

import pytest

from fundledger.ledger.model.refusal import Code
from tests.support.halfway import Halfway, is_waiting_for_a_lock, overtaken
from tests.support.ledger import (
    Ledger,
    code,
    codes,
    new_id,
    posted,
    together,
    transfer,
    voucher,
)
from tests.support.waiting import eventually


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
    """Both workers debit platform accounts on different slots, so only the id makes one wait for the other."""
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    id_ = new_id()
    other = await ledger.worker(1)
    other.lock_always()
    async with overtaken(ledger, transfer(bank, fees, 5, id_=id_), other, transfer(bank, fees, 5, id_=id_)) as outcomes:
        assert codes(outcomes) == ["posted", "posted"]
        assert [outcome.replay for outcome in outcomes] == [False, True]
        assert outcomes[0].record == outcomes[1].record
    assert await ledger.posted(fees) == 5
    await ledger.prove()


async def test_a_duplicate_with_other_content_that_overtakes_is_refused(ledger: Ledger) -> None:
    bank, fees = await ledger.account("bank", "bank"), await ledger.account("fees", "fee_income")
    id_ = new_id()
    other = await ledger.worker(1)
    async with overtaken(ledger, transfer(bank, fees, 5, id_=id_), other, transfer(bank, fees, 6, id_=id_)) as outcomes:
        assert codes(outcomes) == ["posted", "voucher-id-reused"]
    assert await ledger.posted(fees) == 5


async def test_one_id_from_many_workers_concurrently_is_posted_once(ledger: Ledger) -> None:
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
