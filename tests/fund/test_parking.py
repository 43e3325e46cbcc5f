"""Parked orders: a payment or a chargeback that the merchant's accounts do not take is booked, and released later."""

import asyncio
from typing import Any

import asyncpg
import pytest

from fundledger.client.faults import Problem, Unavailable
from fundledger.client.types import Account
from fundledger.fund.jobs.release import Releaser
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store.events import event_of
from fundledger.fund.store.queries import SQL
from tests.support.fund_worker import FundWorker

FEE = Fee(basis_points=100)
PARKED = "suspense:parked"


async def freeze(worker: FundWorker, merchant: str, name: str, scope: str = "all") -> None:
    await worker.accounts.freeze(f"merchant:{merchant}:{name}", "tests", scope)


async def thaw(worker: FundWorker, merchant: str, name: str) -> None:
    await worker.accounts.unfreeze(f"merchant:{merchant}:{name}")


async def release(worker: FundWorker) -> int:
    """Run the job, as if each parked order were due. Return the number of orders that it looked at."""
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE state = 'parked'")
    return (await Releaser(worker.posting, 0.0).release_some())[0]


async def pay(worker: FundWorker, merchant: str, number: str, amount: int, **more: Any) -> Order:
    return await worker.pay(merchant, number, amount, channel_ref=f"{merchant}-{number}", **more)


async def attempts(worker: FundWorker, order: Order) -> int:
    return int(await worker.value("SELECT attempt FROM fund.orders WHERE id = $1", order.id))


async def state_of(worker: FundWorker, order: Order) -> str:
    return str(await worker.value("SELECT state FROM fund.orders WHERE id = $1", order.id))


@pytest.mark.parametrize("settle", ["now", "later"])
async def test_a_payment_to_a_frozen_merchant_is_parked_and_released(worker: FundWorker, settle: str) -> None:
    merchant = await worker.merchant(fee=FEE)
    before = await worker.balance(PARKED)
    await freeze(worker, merchant, "available" if settle == "now" else "pending")
    order = await pay(worker, merchant, "p", 10_000, settle=settle)
    assert (order.state, order.parking, order.posted_at) == (State.PARKED, "park", None)
    assert await worker.of(merchant) == (0, 0, 0)
    assert await worker.balance(PARKED) == before + 10_000
    again = await worker.ask(
        "payment",
        merchant=merchant,
        order_no="q",
        amount=1,
        currency="CNY",
        channel=f"c-{worker.salt}",
        channel_ref=f"{merchant}-p",
    )
    assert isinstance(again, Refusal)
    assert again.code is Code.RECEIPT_ALREADY_BOOKED
    for kind, of in (("refund", "payment_order_no"), ("chargeback", "payment_order_no")):
        no = await worker.ask(kind, merchant=merchant, order_no="r", amount=1, **{of: "p"})
        assert isinstance(no, Refusal)
        assert no.code is Code.PAYMENT_NOT_POSTED
    assert (await Releaser(worker.posting, 0.0).release_some())[0] == 0, "the order is not due"
    await release(worker)
    assert (await state_of(worker, order), await attempts(worker, order)) == ("parked", 1)
    await thaw(worker, merchant, "available" if settle == "now" else "pending")
    assert await release(worker) == 1
    assert await state_of(worker, order) == "posted"
    assert await worker.of(merchant) == ((9_900, 0, 0) if settle == "now" else (0, 10_000, 0))
    assert await worker.balance(PARKED) == before
    if settle == "later":
        assert (await worker.done("settlement", merchant=merchant, order_no="s")).amount == 10_000


async def test_a_payment_to_a_closed_merchant_is_parked(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.accounts.close_account(f"merchant:{merchant}:available")
    order = await pay(worker, merchant, "p", 100)
    assert order.state is State.PARKED
    await release(worker)
    assert (await state_of(worker, order), await attempts(worker, order)) == ("parked", 1)


async def test_a_payment_is_released_although_debits_are_frozen(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await freeze(worker, merchant, "available")
    await pay(worker, merchant, "p", 100)
    await thaw(worker, merchant, "available")
    await freeze(worker, merchant, "available", "debits")
    assert await release(worker) == 1
    assert await worker.of(merchant) == (100, 0, 0)


async def test_a_payment_takes_no_notice_of_a_freeze_of_debits(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await freeze(worker, merchant, "available", "debits")
    assert (await pay(worker, merchant, "p", 100)).state is State.POSTED


async def test_a_chargeback_of_a_frozen_merchant_is_parked_and_nothing_is_withdrawn_before_it(
    worker: FundWorker,
) -> None:
    merchant = await worker.merchant()
    await pay(worker, merchant, "p", 100)
    before = await worker.balance(PARKED)
    for name in ("available", "receivable"):
        await freeze(worker, merchant, name)
    members = {"merchant": merchant, "payment_order_no": "p", "amount": 60}
    order = await worker.done("chargeback", order_no="cb", **members)
    assert (order.state, order.to_receivable) == (State.PARKED, 0)
    assert await worker.balance(PARKED) == before - 60
    more = await worker.ask("chargeback", order_no="cb2", **members)
    assert isinstance(more, Refusal)
    assert more.code is Code.CHARGEBACK_EXCEEDS_PAYMENT
    for name in ("available", "receivable"):
        await thaw(worker, merchant, name)
    no = await worker.ask("withdrawal", merchant=merchant, order_no="w", amount=100, channel=f"c-{worker.salt}")
    assert isinstance(no, Refusal)
    assert no.code is Code.DEBT_IN_PROGRESS
    assert await release(worker) == 1
    assert await state_of(worker, order) == "posted"
    assert await worker.of(merchant) == (40, 0, 0)
    assert await worker.balance(PARKED) == before


async def test_a_released_payment_repays_the_debt_that_arose_meanwhile(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await pay(worker, merchant, "first", 100)
    await freeze(worker, merchant, "available")
    parked = await pay(worker, merchant, "next", 130)
    await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="first", amount=100)
    assert await worker.of(merchant) == (100, 0, 100)
    await thaw(worker, merchant, "available")
    answer = await worker.batcher.retry(parked.id, "tester")
    assert isinstance(answer, Taken)
    assert (answer.order.state, answer.order.set_off) == (State.POSTED, 100)
    assert await worker.of(merchant) == (130, 0, 0)


async def test_many_payments_to_a_frozen_merchant_are_parked_in_few_calls(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await pay(worker, merchant, "warm", 1)
    await freeze(worker, merchant, "available")
    before = worker.posting.counted.batches
    orders = await asyncio.gather(*(pay(worker, merchant, str(n), 5) for n in range(100)))
    assert {order.state for order in orders} == {State.PARKED}
    assert worker.posting.counted.batches - before < 20
    await thaw(worker, merchant, "available")
    while await release(worker):
        pass
    assert await worker.of(merchant) == (501, 0, 0)


async def test_an_order_that_the_bank_account_does_not_take_is_stuck(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await pay(worker, merchant, "warm", 1)
    bank = f"bank:c-{worker.salt}"
    await worker.accounts.freeze(bank, "tests", "all")
    order = await pay(worker, merchant, "p", 5)
    assert (order.state, order.parking) == (State.STUCK, "park")
    again = await worker.batcher.retry(order.id, "tester")
    assert isinstance(again, Taken)
    assert again.order.state is State.STUCK
    await worker.accounts.unfreeze(bank)
    parked = await worker.batcher.retry(order.id, "tester")
    assert isinstance(parked, Taken)
    assert parked.order.state is State.PARKED
    assert await release(worker) == 1
    assert await worker.of(merchant) == (6, 0, 0)


async def test_a_payment_that_was_parked_cannot_be_reversed_but_refunded(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=FEE)
    before = await worker.balance(PARKED)
    await freeze(worker, merchant, "available")
    await pay(worker, merchant, "p", 100)
    await thaw(worker, merchant, "available")
    assert await release(worker) == 1
    members = {"merchant": merchant, "of_kind": "payment", "of_order_no": "p", "reason": "r"}
    no = await worker.ask("reversal", order_no="v", **members)
    assert isinstance(no, Refusal)
    assert no.code is Code.ORDER_NOT_REVERSIBLE
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
    assert await worker.of(merchant) == (0, 0, 0)
    assert await worker.balance(PARKED) == before


@pytest.mark.parametrize("fault", ["account", "database"])
async def test_an_order_that_cannot_be_released_delays_no_other(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    bad, good = await worker.merchant("bad"), await worker.merchant("good")
    for merchant in (bad, good):
        await freeze(worker, merchant, "available")
        await pay(worker, merchant, "p", 100)
        await thaw(worker, merchant, "available")
    look, post = worker.accounts.account, worker.posting.release

    async def account(id_: str) -> Account | None:
        if bad in id_:
            raise Unavailable("HTTP 500", Problem({"type": "urn:fundledger:problem:integrity", "status": 500}))
        return await look(id_)

    async def released(order: Order, due_s: float) -> None:
        if order.merchant == bad:
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        await post(order, due_s)

    with monkeypatch.context() as broken:
        if fault == "account":
            broken.setattr(worker.accounts, "account", account)
        else:
            broken.setattr(worker.posting, "release", released)
        await release(worker)
    assert await worker.of(good) == (100, 0, 0)
    assert await worker.of(bad) == (0, 0, 0)
    await release(worker)
    assert await worker.of(bad) == (100, 0, 0)


async def test_a_refused_release_leaves_the_order_parked(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await freeze(worker, merchant, "available")
    order = await pay(worker, merchant, "p", 5)
    for attempt in (2, 3):
        answer = await worker.batcher.retry(order.id, "tester")
        assert isinstance(answer, Taken)
        assert (answer.order.state, answer.order.attempt) == (State.PARKED, attempt)
    await thaw(worker, merchant, "available")
    assert await release(worker) == 1
    assert await worker.of(merchant) == (5, 0, 0)
    rows = await worker.pool.fetch(SQL["read_events"], 0, 1 << 40, 1_000)
    events = [event_of(row, worker.macs) for row in rows if row["id"] == order.id]
    states = ["parked", "posting", "parked", "posting", "parked", "posting", "posted"]
    assert [event.type for event in events] == [f"payment.{state}" for state in states]
    assert len({event.id for event in events}) == len(states)
    assert (events[0].id, events[-1].id) == (f"{order.id}:parked", f"{order.id}:posted")
