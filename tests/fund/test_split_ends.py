"""The ways back of split orders: a split refund ends through its channel, and the other kinds are reversed or cleared."""

from typing import Any

import pytest

from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code
from fundledger.fund.store.orders import read_order
from tests.fund.test_splits import INCOME, back, no, parts_of, pay, refused, release, reversal_of, row, taken, three
from tests.support.fund_worker import CHECKER, FundWorker


async def transit(worker: FundWorker) -> tuple[int, int]:
    """Return the balances of refunds in transit and of the bank account."""
    channel = f"c-{worker.salt}"
    return await worker.balance(f"transit:refund:{channel}"), await worker.balance(f"bank:{channel}")


async def end(worker: FundWorker, order: Order, ending: Any, ref: str | None = None) -> Answer:
    return await worker.batcher.end(order.id, ending, ref, None if ref else "closed", "bank")


async def undo(worker: FundWorker, kind: str, of: str, number: str = "v") -> Answer:
    return await worker.ask("reversal", **{**reversal_of(worker, of, number), "of_kind": kind})


async def test_the_money_of_a_refund_is_in_transit_until_the_bank_has_sent_it(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 500})
    order = taken(await back(worker, "refund", "r", "p", parts=parts_of({a: 100, b: 50})))
    assert (order.state, order.channel) == (State.POSTED, f"c-{worker.salt}")
    assert await transit(worker) == (150, 1_500)
    assert taken(await end(worker, order, "paid", "OUT-1")).state is State.PAID
    assert await transit(worker) == (0, 1_350)
    again = await end(worker, order, "paid", "OUT-1")
    assert isinstance(again, Taken)
    assert again.replay
    refused(await end(worker, order, "bounced"), Code.REFUND_PAID)
    refused(await end(worker, order, "paid", "OUT-2"), Code.REFUND_PAID, "channel_ref")


async def test_a_refund_that_bounces_gives_each_merchant_its_part_again(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    payment = await pay(worker, "p", {a: 1_000, b: 500, c: 100})
    income, before = await worker.balance(INCOME), [await worker.of(each) for each in (a, b, c)]
    order = taken(await back(worker, "refund", "r", "p", parts=parts_of({a: 1_000, b: 400})))
    assert (order.fee, (await row(worker, payment, a))["refunded"]) == (10, 1_000)
    assert taken(await end(worker, order, "bounced")).state is State.BOUNCED
    assert await worker.balance(INCOME) == income
    assert [await worker.of(each) for each in (a, b, c)] == before
    assert await transit(worker) == (0, 1_600)
    left = [await row(worker, payment, each) for each in (a, b)]
    assert [(part["refunded"], part["fee_returned"]) for part in left] == [(0, 0), (0, 0)]
    # The payment can be refunded again, as if nothing had happened.
    again = taken(await back(worker, "refund", "r2", "p", amount=1_600))
    assert (again.fee, await worker.of(a)) == (10, (0, 0, 0))


async def test_what_bounces_repays_the_debt_of_each_merchant_first(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 500, c: 100})
    order = taken(await back(worker, "refund", "r", "p", parts=parts_of({a: 1_000, b: 400})))
    # b has 100 left, of which 60 are gone: it owes 60 of this chargeback.
    await worker.debit(b, "gone", 60)
    owed = taken(await back(worker, "chargeback", "c", "p", parts=parts_of({b: 100})))
    assert (owed.to_receivable, await worker.of(b)) == (60, (0, 0, 60))
    ended = taken(await end(worker, order, "bounced"))
    assert ended.end_set_off == 60
    assert {part.merchant: part.end_set_off for part in ended.parts or ()} == {a: 0, b: 60}
    assert [await worker.of(each) for each in (a, b)] == [(990, 0, 0), (340, 0, 0)]
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", b) == 0
    assert (await row(worker, order, b))["end_set_off"] == 60
    # A merchant without a debt withdraws.
    await worker.done("withdrawal", merchant=b, order_no="w", amount=340, channel=f"c-{worker.salt}")


async def test_while_a_bounce_with_a_set_off_is_not_posted_its_merchants_do_not_withdraw(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 500})
    order = taken(await back(worker, "refund", "r", "p", parts=parts_of({b: 400})))
    await worker.debit(b, "gone", 100)
    taken(await back(worker, "chargeback", "c", "p", parts=parts_of({b: 100})))
    await worker.accounts.freeze(f"transit:refund:c-{worker.salt}", "tests", "all")
    assert taken(await end(worker, order, "bounced")).state is State.POSTED
    withdrawal = {"merchant": b, "order_no": "w", "amount": 1, "channel": f"c-{worker.salt}"}
    refused(await worker.ask("withdrawal", **withdrawal), Code.DEBT_IN_PROGRESS)
    await worker.accounts.unfreeze(f"transit:refund:c-{worker.salt}")
    taken(await worker.batcher.retry(order.id, "tester"))
    found = await read_order(worker.pool, order.id)
    assert found is not None
    assert found.state is State.BOUNCED
    assert await worker.of(b) == (300, 0, 0)


async def test_a_chargeback_that_the_bank_returned_is_reversed_and_its_parts_are_free_again(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    payment = await pay(worker, "p", {a: 1_000, b: 500})
    charged = taken(await back(worker, "chargeback", "c", "p", amount=1_500, channel_ref="CB-1"))
    assert await transit(worker) == (0, 0)
    refused(await back(worker, "refund", "r", "p", amount=1), Code.REFUND_EXCEEDS_PAYMENT, "amount")
    # a owes its fee, because it has only 990 of the 1000.
    assert charged.to_receivable == 10
    refused(await undo(worker, "split_chargeback", "c"), Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    await pay(worker, "q", {a: 1_000, b: 500})
    second = taken(await back(worker, "chargeback", "c2", "q", amount=1_400, channel_ref="CB-2"))
    assert (second.to_receivable, await worker.of(b)) == (0, (33, 0, 0))
    waits = await worker.requested("reversal", **{**reversal_of(worker, "c2"), "of_kind": "split_chargeback"})
    assert taken(await worker.batcher.approve(waits.id, CHECKER)).state is State.POSTED
    assert [await worker.of(each) for each in (a, b)] == [(980, 0, 0), (500, 0, 0)]
    refused(await undo(worker, "split_chargeback", "c2", "v2"), Code.ORDER_ALREADY_REVERSED, "of_order_no")
    # The parts can be charged back again, and the reference is free.
    third = taken(await back(worker, "chargeback", "c3", "q", amount=1_500, channel_ref="CB-2"))
    assert third.state is State.POSTED
    assert (await row(worker, payment, a))["charged_back"] == 1_000


@pytest.mark.parametrize(("against", "bank"), [("bank", 0), ("income", 1_000), ("merchant", 1_000)])
async def test_a_parked_split_payment_is_cleared_as_a_whole(worker: FundWorker, against: str, bank: int) -> None:
    a, b, other = await three(worker)
    await worker.accounts.close_account(f"merchant:{b}:available")
    parked = await pay(worker, "p", {a: 600, b: 400})
    assert parked.state is State.PARKED
    before = await worker.balance("income:other")
    terms = {"of_kind": "split_payment", "of_order_no": no(worker, "p"), "against": against, "reason": "b is closed"}
    named = {"merchant": other} if against == "merchant" else {}
    cleared = taken(await worker.ask("parked_clearing", order_no=no(worker, "pc"), **terms, **named))
    assert (cleared.state, cleared.amount, cleared.currency) == (State.POSTED, 1_000, "CNY")
    assert (await transit(worker))[1] == bank
    assert await worker.balance("income:other") - before == (1_000 if against == "income" else 0)
    assert (await worker.of(other))[0] == (1_000 if against == "merchant" else 0)
    found = await read_order(worker.pool, parked.id)
    assert found is not None
    assert found.state is State.CLEARED
    await release(worker)
    assert await worker.of(a) == (0, 0, 0)
    missing = {**terms, "of_order_no": no(worker, "none")}
    refused(
        await worker.ask("parked_clearing", order_no=no(worker, "x"), **missing, **named),
        Code.ORDER_NOT_FOUND,
        "of_order_no",
    )
