"""Split payments: one receipt and one voucher for several merchants, and refunds, chargebacks and reversals of their
parts.
"""

import asyncio
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.client.types import Account
from fundledger.fund.jobs.release import Releaser
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.order import PLATFORM, Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.requests import Fee
from fundledger.fund.store.events import event_of
from fundledger.fund.store.orders import read_order
from fundledger.fund.store.queries import SQL
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.running import RunningService
from tests.support.tampering import any_state

FEE = Fee(basis_points=100)
INCOME, PARKED = "income:fee", "suspense:parked"
Amounts = dict[str, int]


async def three(worker: FundWorker) -> list[str]:
    """Return three merchants, of which the first has a fee."""
    return [await worker.merchant("a", fee=FEE), await worker.merchant("b"), await worker.merchant("c")]


def no(worker: FundWorker, number: str) -> str:
    """Return an order number of the platform that no other test uses."""
    return f"{number}-{worker.salt}"


async def ask(worker: FundWorker, number: str, amounts: Amounts, **more: Any) -> Answer:
    members = {"amount": sum(amounts.values()), "currency": "CNY", "channel": f"c-{worker.salt}"}
    members["parts"] = parts_of(amounts)
    return await asked(worker, "split_payment", {"order_no": no(worker, number), **members, **more})


async def pay(worker: FundWorker, number: str, amounts: Amounts, **more: Any) -> Order:
    return taken(await ask(worker, number, amounts, **more))


async def back(worker: FundWorker, kind: str, number: str, of: str, **more: Any) -> Answer:
    named = {"order_no": no(worker, number), "of_order_no": no(worker, of)}
    return await asked(worker, f"split_{kind}", {**named, **more})


def reversal_of(worker: FundWorker, payment: str, number: str = "v") -> dict[str, str]:
    named = {"order_no": no(worker, number), "of_order_no": no(worker, payment)}
    return {"of_kind": "split_payment", "reason": "twice", **named}


async def asked(worker: FundWorker, kind: str, members: dict[str, Any]) -> Answer:
    return await worker.asked(msgspec.convert(members, REQUESTS[Kind(kind)]))


def parts_of(amounts: Amounts) -> list[Any]:
    return [{"merchant": merchant, "amount": amount} for merchant, amount in amounts.items()]


def taken(answer: Answer) -> Order:
    assert isinstance(answer, Taken), answer
    return answer.order


def refused(answer: Answer, code: Code, field: str | None = None) -> str:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field)
    return answer.detail


def shares(order: Order) -> dict[str, tuple[int, int]]:
    """Return the amount and the fee of each part."""
    return {part.merchant: (part.amount, part.fee) for part in order.parts or ()}


async def row(worker: FundWorker, order: Order, merchant: str) -> dict[str, Any]:
    found = await worker.pool.fetchrow(
        "SELECT * FROM fund.split_parts WHERE order_id = $1 AND merchant = $2", order.id, merchant
    )
    assert found is not None
    return dict(found)


async def release(worker: FundWorker) -> None:
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE state = 'parked'")
    await Releaser(worker.posting, 0.0).release_some()


# --- Payments -----------------------------------------------------------------------------------------------------------


async def test_one_voucher_credits_each_merchant_less_its_fee(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    income = await worker.balance(INCOME)
    given = [{"merchant": a, "amount": 6_000}, {"merchant": b, "amount": 3_000}, {"merchant": c, "amount": 1_000}]
    given[2]["commission"] = 250
    order = await pay(worker, "p", {a: 6_000, b: 3_000, c: 1_000}, parts=given)
    assert (order.state, order.merchant, order.amount, order.fee) == (State.POSTED, PLATFORM, 10_000, 310)
    assert shares(order) == {a: (6_000, 60), b: (3_000, 0), c: (1_000, 250)}
    assert [await worker.of(each) for each in (a, b, c)] == [(5_940, 0, 0), (3_000, 0, 0), (750, 0, 0)]
    assert await worker.balance(f"bank:c-{worker.salt}") == 10_000
    assert await worker.balance(INCOME) == income + 310
    record = await worker.accounts.voucher(order.voucher_id)
    assert record is not None
    assert (record.type, len(record.entries)) == ("split_pay", 5)
    replay = await ask(worker, "p", {a: 6_000, b: 3_000, c: 1_000}, parts=given)
    assert isinstance(replay, Taken)
    assert (replay.replay, replay.order.id) == (True, order.id)
    refused(await ask(worker, "p", {a: 6_000, b: 4_000}), Code.ORDER_NO_REUSED, "order_no")


async def test_an_event_shows_a_merchant_its_own_part_and_the_owner_no_debts_of_others(worker: FundWorker) -> None:
    a, b, market = await worker.merchant("ea"), await worker.merchant("eb"), await worker.merchant("em")
    await owe(worker, b, 40)
    order = await pay(worker, "ev", {a: 100, b: 100}, merchant=market)
    assert order.set_off == 40
    rows = await worker.pool.fetch(SQL["read_events"], 0, 1 << 40, 1_000)
    (event,) = [event_of(row, worker.macs) for row in rows if row["id"] == order.id]
    assert event.for_each is not None
    bodies = {merchant: msgspec.json.decode(body)["order"] for merchant, body in event.for_each()}
    shown = {
        name: [(part["merchant"], part.get("set_off", 0)) for part in body["parts"]] for name, body in bodies.items()
    }
    assert shown == {a: [(a, 0)], b: [(b, 40)], market: [(a, 0), (b, 0)]}
    assert [bodies[name].get("set_off", 0) for name in (a, b, market)] == [0, 40, 0]
    assert msgspec.json.decode(event.body)["order"]["set_off"] == 40


async def test_a_marketplace_owns_its_numbers_and_needs_no_part(worker: FundWorker) -> None:
    a, b, market = await three(worker)
    own = await pay(worker, "p", {a: 10, b: 20}, merchant=market)
    other = await pay(worker, "p", {a: 1, b: 2})
    assert (own.merchant, other.merchant) == (market, PLATFORM)
    assert own.id != other.id
    assert await worker.of(market) == (0, 0, 0)
    refused(await back(worker, "refund", "r", "none", merchant=market, amount=1), Code.PAYMENT_NOT_FOUND, "of_order_no")
    assert taken(await back(worker, "refund", "r", "p", merchant=market, amount=30)).amount == 30
    exceeds = await back(worker, "refund", "r", "p", amount=30)
    refused(exceeds, Code.REFUND_EXCEEDS_PAYMENT, "amount")


async def test_a_receipt_counts_once_over_payments_and_split_payments(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await pay(worker, "p", {a: 10, b: 20}, channel_ref="R")
    detail = refused(
        await ask(worker, "q", {a: 10, b: 20}, channel_ref="R"), Code.RECEIPT_ALREADY_BOOKED, "channel_ref"
    )
    assert f"split_payment p-{worker.salt} of platform" in detail
    members = {"currency": "CNY", "channel": f"c-{worker.salt}", "channel_ref": "R", "amount": 30, "order_no": "x"}
    refused(await worker.ask("payment", merchant=a, **members), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    answers = await asyncio.gather(*(ask(worker, f"n{i}", {a: 1, b: 2}, channel_ref="S") for i in range(8)))
    assert sum(isinstance(answer, Taken) for answer in answers) == 1


async def test_a_part_needs_a_merchant_with_the_currency(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    dollars = await worker.merchant("d", "USD")
    for other in ("nobody", PLATFORM):
        refused(await ask(worker, "p", {a: 1, other: 2}), Code.MERCHANT_NOT_FOUND, "parts")
    refused(await ask(worker, "p", {a: 1, dollars: 2}), Code.CURRENCY_MISMATCH, "parts")
    refused(await ask(worker, "p", {a: 1, b: 2}, merchant=dollars), Code.CURRENCY_MISMATCH, "currency")
    refused(await ask(worker, "p", {a: 1, b: 2}, merchant="nobody"), Code.MERCHANT_NOT_FOUND, "merchant")
    assert await worker.value("SELECT count(*) FROM fund.orders") == 0
    assert await worker.value("SELECT count(*) FROM fund.split_parts") == 0


async def test_twenty_parts_of_the_greatest_amount_are_one_voucher(worker: FundWorker) -> None:
    names = [await worker.merchant(f"m{i}", fee=FEE) for i in range(20)]
    most = 2**53 - 1
    parts = dict.fromkeys(names, most // 20)
    parts[names[0]] += most - sum(parts.values())
    order = await pay(worker, "p", parts)
    assert (order.state, order.amount, len(order.parts or ())) == (State.POSTED, most, 20)
    done = taken(await back(worker, "refund", "r", "p", amount=most))
    assert (done.state, done.fee) == (State.POSTED, order.fee)
    assert {await worker.of(name) for name in names} == {(0, 0, 0)}


async def test_each_part_repays_the_debt_of_its_merchant(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    await owe(worker, a, 500)
    await owe(worker, b, 5_000)
    order = await pay(worker, "p", {a: 1_000, b: 2_000, c: 3_000})
    assert {part.merchant: part.set_off for part in order.parts or ()} == {a: 500, b: 2_000, c: 0}
    assert order.set_off == 2_500
    assert [await worker.of(each) for each in (a, b, c)] == [(490, 0, 0), (0, 0, 3_000), (3_000, 0, 0)]
    owed = "SELECT owed FROM fund.debts WHERE merchant = $1"
    assert [await worker.value(owed, each) for each in (a, b)] == [0, 3_000]


async def owe(worker: FundWorker, merchant: str, amount: int) -> None:
    """Let a merchant owe an amount: its payment is charged back after it has withdrawn."""
    await worker.pay(merchant, "first", 1_000_000)
    (has, _, _) = await worker.of(merchant)
    channel = f"c-{worker.salt}"
    await worker.done("withdrawal", merchant=merchant, order_no="all", amount=has, channel=channel)
    await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="first", amount=amount)
    assert await worker.of(merchant) == (0, 0, amount)


async def test_concurrent_batches_over_the_same_merchants_do_not_block_each_other(
    worker: FundWorker, service: RunningService
) -> None:
    """Each order locks the debts of several merchants. Without one lock order, some would end in deadlocks."""
    names = [await worker.merchant(f"m{i}") for i in range(6)]
    for name in names:
        await owe(worker, name, 1_000)
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        asked = []
        for i in range(40):
            some = (names if i % 2 else names[::-1])[i % 3 :]
            asked.append(ask((worker, other)[i % 2], f"p{i}", dict.fromkeys(some, 10)))
            asked.append(back((other, worker)[i % 2], "refund", f"r{i}", f"p{i}", amount=5))
            asked.append(worker.ask("recovery", merchant=names[i % 6], order_no=f"v{i}", amount=1))
        answers = await asyncio.gather(*asked)
    assert [answer for answer in answers if isinstance(answer, OrderFault)] == []
    assert sum(isinstance(answer, Taken) for answer in answers[::3]) == 40


# --- Parking ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["frozen", "closed"])
async def test_a_payment_that_one_merchant_cannot_take_is_parked_as_a_whole(worker: FundWorker, how: str) -> None:
    a, b, c = await three(worker)
    await owe(worker, a, 500)
    parked = await worker.balance(PARKED)
    account = f"merchant:{b}:available"
    await (worker.accounts.freeze(account, "t", "all") if how == "frozen" else worker.accounts.close_account(account))
    order = await pay(worker, "p", {a: 1_000, b: 2_000, c: 3_000}, channel_ref="R")
    assert (order.state, order.set_off) == (State.PARKED, 0)
    assert [part.set_off for part in order.parts or ()] == [0, 0, 0]
    assert [await worker.of(each) for each in (a, b, c)] == [(0, 0, 500), (0, 0, 0), (0, 0, 0)]
    assert await worker.balance(PARKED) == parked + 6_000
    assert (await row(worker, order, a))["set_off"] == 0
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", a) == 500
    refused(await back(worker, "refund", "r", "p", amount=1), Code.PAYMENT_NOT_POSTED, "of_order_no")
    again = await ask(worker, "q", {a: 1, c: 2}, channel_ref="R")
    refused(again, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    await release(worker)
    assert await worker.value("SELECT state FROM fund.orders WHERE id = $1", order.id) == "parked"
    if how == "closed":
        return
    await worker.accounts.unfreeze(account)
    await release(worker)
    there = await read_order(worker.pool, order.id)
    assert there is not None
    assert (there.state, there.set_off) == (State.POSTED, 500)
    assert [await worker.of(each) for each in (a, b, c)] == [(490, 0, 0), (2_000, 0, 0), (3_000, 0, 0)]
    assert await worker.balance(PARKED) == parked
    assert (await row(worker, order, a))["set_off"] == 500
    # A parked order has two vouchers, so it is refunded and not reversed.
    answer = await worker.ask("reversal", **reversal_of(worker, "p"))
    refused(answer, Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    assert taken(await back(worker, "refund", "r", "p", amount=6_000)).state is State.REFUSED
    assert taken(await back(worker, "refund", "r2", "p", parts=parts_of({b: 2_000}))).state is State.POSTED


async def test_a_release_that_is_refused_is_parked_again_and_leaves_the_debt(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = await three(worker)
    await owe(worker, a, 500)
    account = f"merchant:{b}:available"
    await worker.accounts.freeze(account, "t", "all")
    order = await pay(worker, "p", {a: 1_000, b: 2_000})
    there = await read_order(worker.pool, order.id)
    assert there is not None
    await worker.posting.release(there, 0.0)
    assert (there.state, there.attempt, there.set_off) == (State.PARKED, 2, 0)
    assert (await row(worker, order, a))["set_off"] == 0
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", a) == 500
    await worker.accounts.unfreeze(account)
    released = taken(await worker.batcher.retry(order.id, "t"))
    assert (released.state, released.set_off) == (State.POSTED, 500)


async def test_no_merchant_withdraws_while_a_split_payment_may_repay_its_debt(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, market = await three(worker)
    await owe(worker, a, 500)
    await worker.pay(market, "m", 1_000)

    async def unanswered(*_: object) -> list[None]:
        return [None]

    worker.batcher._wait_s = 0.1
    with monkeypatch.context() as lost:
        lost.setattr(worker.gateway, "post", unanswered)
        order = await pay(worker, "p", {a: 1_000, b: 2_000}, merchant=market)
    worker.batcher._wait_s = 5.0
    assert order.state is State.POSTING
    channel = f"c-{worker.salt}"
    waits = await worker.ask("withdrawal", merchant=a, order_no="w", amount=1, channel=channel)
    refused(waits, Code.DEBT_IN_PROGRESS)
    # The owner and a merchant without a debt may withdraw.
    assert taken(await worker.ask("withdrawal", merchant=market, order_no="w", amount=1, channel=channel))
    await worker.recoverer.recover_some()
    assert await worker.of(a) == (490, 0, 0)
    assert taken(await worker.ask("withdrawal", merchant=a, order_no="w", amount=490, channel=channel))


async def test_a_payment_that_was_inserted_before_the_worker_died_is_recovered(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = await three(worker)
    await owe(worker, a, 500)

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as killed:
        killed.setattr(worker.posting, "post", dies)
        answer = asyncio.ensure_future(ask(worker, "p", {a: 1_000, b: 2_000}))
        await asyncio.wait([answer], timeout=1.0)
    await worker.start_worker()
    await worker.recoverer.recover_some()
    order = await pay(worker, "p", {a: 1_000, b: 2_000})
    assert (order.state, order.set_off) == (State.POSTED, 500)
    assert [await worker.of(each) for each in (a, b)] == [(490, 0, 0), (2_000, 0, 0)]


# --- Refunds ------------------------------------------------------------------------------------------------------------


async def test_a_refund_names_its_parts_or_is_divided_in_proportion_to_what_is_left(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    order = await pay(worker, "p", {a: 1_000, b: 500, c: 1})
    named = taken(await back(worker, "refund", "r1", "p", parts=parts_of({b: 500})))
    assert shares(named) == {b: (500, 0)}
    divided = taken(await back(worker, "refund", "r2", "p", amount=500))
    # 1000 and 1 are left: the exact shares are 499.5 and 0.5 of 1001, so the first part gets the unit.
    assert shares(divided) == {a: (500, 5)}
    rest = taken(await back(worker, "refund", "r3", "p", amount=501))
    assert shares(rest) == {a: (500, 5), c: (1, 0)}
    assert order.fee == divided.fee + rest.fee == 10
    assert [await worker.of(each) for each in (a, b, c)] == [(0, 0, 0)] * 3
    refused(await back(worker, "refund", "r4", "p", amount=1), Code.REFUND_EXCEEDS_PAYMENT, "amount")
    assert (
        await worker.balance(f"bank:c-{worker.salt}")
        == await worker.balance(f"transit:refund:c-{worker.salt}")
        == 1_501
    )


async def test_a_refund_never_exceeds_a_part(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    await pay(worker, "p", {a: 100, b: 50})
    for parts, why in (({a: 101}, "100 of the part"), ({a: 1, b: 51}, "50 of the part"), ({c: 1}, "has no part")):
        exceeds = await back(worker, "refund", "r", "p", parts=parts_of(parts))
        assert why in refused(exceeds, Code.REFUND_EXCEEDS_PAYMENT, "parts")
    refused(await back(worker, "refund", "r", "p", amount=151), Code.REFUND_EXCEEDS_PAYMENT, "amount")
    assert await worker.value("SELECT count(*) FROM fund.orders WHERE kind = 'split_refund'") == 0


async def test_a_refused_refund_leaves_every_column_as_it_was(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    order = await pay(worker, "p", {a: 1_000, b: 500})
    await worker.debit(b, "gone", 400)
    before = await row(worker, order, a), await row(worker, order, b)
    answer = await back(worker, "refund", "r", "p", amount=1_500)
    assert taken(answer).state is State.REFUSED
    assert (await row(worker, order, a), await row(worker, order, b)) == before
    assert await worker.of(a) == (990, 0, 0)
    done = taken(await back(worker, "refund", "r2", "p", parts=parts_of({a: 1_000, b: 100})))
    assert (done.state, done.fee) == (State.POSTED, 10)


async def test_a_hundred_concurrent_refunds_return_each_part_once(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    parts = {a: 1_000, b: 500, c: 300}
    order = await pay(worker, "p", parts)
    asked = [
        back(worker, "refund", f"r{i}", "p", **({"amount": 33} if i % 2 else {"parts": parts_of({b: 7, c: 11})}))
        for i in range(100)
    ]
    done = [answer.order for answer in await asyncio.gather(*asked) if isinstance(answer, Taken)]
    for name in (a, b, c):
        left = parts[name] - sum(shares(each).get(name, (0, 0))[0] for each in done)
        assert left >= 0
        if left:
            done.append(taken(await back(worker, "refund", f"rest-{name}", "p", parts=parts_of({name: left}))))
    assert sum(each.amount for each in done) == 1_800
    assert sum(each.fee for each in done) == order.fee
    assert [await worker.of(each) for each in (a, b, c)] == [(0, 0, 0)] * 3
    refused(await back(worker, "refund", "more", "p", amount=1), Code.REFUND_EXCEEDS_PAYMENT, "amount")


# --- Chargebacks --------------------------------------------------------------------------------------------------------


async def test_a_chargeback_makes_each_merchant_owe_what_its_balance_lacks(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 500, c: 300})
    await worker.debit(a, "gone", 900)
    await worker.debit(b, "gone", 500)
    order = taken(await back(worker, "chargeback", "cb", "p", amount=1_800, channel_ref="X"))
    assert (order.state, order.fee, order.to_receivable) == (State.POSTED, 0, 910 + 500)
    assert {part.merchant: part.to_receivable for part in order.parts or ()} == {a: 910, b: 500, c: 0}
    assert [await worker.of(each) for each in (a, b, c)] == [(0, 0, 910), (0, 0, 500), (0, 0, 0)]
    refused(await back(worker, "refund", "r", "p", amount=1), Code.REFUND_EXCEEDS_PAYMENT, "amount")
    refused(await back(worker, "chargeback", "c2", "p", amount=1), Code.CHARGEBACK_EXCEEDS_PAYMENT, "amount")
    await pay(worker, "q", {a: 2_000, b: 600})
    assert [await worker.of(each) for each in (a, b)] == [(1_070, 0, 0), (100, 0, 0)]


async def test_a_chargeback_is_owed_in_full_when_balances_fall_before_each_attempt(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await pay(worker, "p", {a: 100, b: 100})
    await worker.debit(a, "some", 50)
    look, seen = worker.accounts.account, []

    async def spends(id_: str) -> Account | None:
        account = await look(id_)
        if id_ == f"merchant:{a}:available":
            seen.append(id_)
            await worker.debit(a, f"d{len(seen)}", 10)
        return account

    worker.accounts.account = spends  # type: ignore[method-assign]
    order = taken(await back(worker, "chargeback", "cb", "p", amount=200))
    worker.accounts.account = look  # type: ignore[method-assign]
    assert (order.state, order.attempt, order.to_receivable) == (State.POSTED, 3, 200)
    assert [await worker.of(each) for each in (a, b)] == [(29, 0, 100), (100, 0, 100)]


async def test_a_chargeback_of_frozen_merchants_is_parked_and_blocks_withdrawals(worker: FundWorker) -> None:
    a, b, c = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 500})
    for name in ("available", "receivable"):
        await worker.accounts.freeze(f"merchant:{b}:{name}", "t", "all")
    order = taken(await back(worker, "chargeback", "cb", "p", parts=parts_of({a: 600, b: 500})))
    assert (order.state, order.to_receivable) == (State.PARKED, 0)
    assert await worker.of(a) == (990, 0, 0)
    channel = f"c-{worker.salt}"
    for name, code in ((a, Code.DEBT_IN_PROGRESS), (b, Code.DEBT_IN_PROGRESS)):
        waits = await worker.ask("withdrawal", merchant=name, order_no="w", amount=1, channel=channel)
        refused(waits, code)
    await worker.pay(c, "own", 5)
    assert taken(await worker.ask("withdrawal", merchant=c, order_no="w", amount=1, channel=channel))
    for name in ("available", "receivable"):
        await worker.accounts.unfreeze(f"merchant:{b}:{name}")
    await release(worker)
    assert [await worker.of(each) for each in (a, b)] == [(390, 0, 0), (0, 0, 0)]


# --- Reversals ----------------------------------------------------------------------------------------------------------


async def test_a_reversal_by_two_people_undoes_everything_and_frees_the_receipt(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await owe(worker, a, 500)
    order = await pay(worker, "p", {a: 1_000, b: 2_000}, channel_ref="R")
    first = await worker.requested("reversal", **reversal_of(worker, "p"))
    second = await worker.requested("reversal", **reversal_of(worker, "p", "v2"))
    assert isinstance(await worker.batcher.approve(first.id, "tester"), Refusal)
    done = taken(await worker.batcher.approve(first.id, CHECKER))
    assert (done.state, done.amount, done.to_receivable) == (State.POSTED, 3_000, 500)
    assert [await worker.of(each) for each in (a, b)] == [(0, 0, 500), (0, 0, 0)]
    assert (await row(worker, order, a))["reversed"]
    refused(await worker.batcher.approve(second.id, CHECKER), Code.ORDER_ALREADY_REVERSED, "of_order_no")
    for kind in ("refund", "chargeback"):
        refused(await back(worker, kind, "x", "p", amount=1), Code.ORDER_ALREADY_REVERSED, "of_order_no")
    again = await pay(worker, "q", {a: 600, b: 1}, channel_ref="R")
    assert again.set_off == 500


async def test_a_payment_of_which_something_came_back_is_not_reversed(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 2_000})
    waits = await worker.requested("reversal", **reversal_of(worker, "p"))
    await back(worker, "refund", "r", "p", parts=parts_of({b: 1}))
    refused(await worker.batcher.approve(waits.id, CHECKER), Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    again = await worker.ask("reversal", **reversal_of(worker, "p", "v2"))
    refused(again, Code.ORDER_NOT_REVERSIBLE, "of_order_no")


async def test_a_refused_reversal_leaves_a_payment_that_can_be_refunded(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    order = await pay(worker, "p", {a: 1_000, b: 2_000})
    await worker.debit(b, "gone", 1)
    assert (await worker.done("reversal", **reversal_of(worker, "p"))).state is State.REFUSED
    assert not (await row(worker, order, a))["reversed"]
    assert taken(await back(worker, "refund", "r", "p", parts=parts_of({a: 1_000, b: 1_999}))).state is State.POSTED


async def test_refunds_and_reversals_of_one_payment_exclude_each_other(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    for i in range(6):
        await pay(worker, f"p{i}", {a: 100, b: 100})
        waits = await worker.requested("reversal", **reversal_of(worker, f"p{i}", f"v{i}"))
        answers = await asyncio.gather(
            worker.batcher.approve(waits.id, CHECKER),
            *(back(worker, "refund", f"r{i}{n}", f"p{i}", amount=50) for n in "abc"),
        )
        reversal, *refunds = [isinstance(answer, Taken) for answer in answers]
        assert reversal != any(refunds)


# --- Tampering ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        "refunded = 0, fee_returned = 0",
        "charged_back = 0",
        "mac = 'x'",
        "fee_returned = 1",
        "seq = seq + 1",
        "mac_key = 7",
    ],
)
async def test_nothing_comes_back_of_a_payment_whose_part_was_edited(
    fund_database: str, service: RunningService, edit: str
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        a, b, c = await three(worker)
        order = await pay(worker, "p", {a: 1_000, b: 2_000})
        await pay(worker, "q", {b: 1_000, c: 2_000})
        await back(worker, "refund", "r", "p", parts=parts_of({a: 600}))
        await back(worker, "chargeback", "cb", "p", parts=parts_of({a: 7}))
        has = await worker.of(a), await worker.of(b)
        await worker.value("ALTER TABLE fund.split_parts DISABLE TRIGGER split_parts_terms")
        await worker.value(f"UPDATE fund.split_parts SET {edit} WHERE (order_id, merchant) = ($1, $2)", order.id, a)
        for kind in ("refund", "chargeback"):
            answer = await back(worker, kind, "more", "p", amount=10)
            assert isinstance(answer, OrderFault)
            assert answer.tampered
        reversal = await worker.ask("reversal", **reversal_of(worker, "p"))
        assert isinstance(reversal, OrderFault)
        assert (await worker.of(a), await worker.of(b)) == has
        assert taken(await back(worker, "refund", "q", "q", amount=10)).state is State.POSTED


async def test_a_part_that_is_gone_does_not_begin_again(fund_database: str, service: RunningService) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        a, b, _ = await three(worker)
        await pay(worker, "p", {a: 1_000, b: 2_000})
        await back(worker, "refund", "r", "p", parts=parts_of({a: 1_000}))
        await worker.value("ALTER TABLE fund.split_parts DISABLE TRIGGER ALL")
        await worker.value("DELETE FROM fund.split_parts WHERE merchant = $1", a)
        answer = await back(worker, "refund", "more", "p", amount=10)
        assert isinstance(answer, OrderFault)
        assert answer.tampered


@pytest.mark.parametrize(
    "parts",
    [
        '[{"merchant": "thief", "amount": 3000}]',
        "[7]",
        "[]",
        '"x"',
        "null",
    ],
)
async def test_edited_terms_post_nothing_and_hold_up_no_other_order(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch, parts: str
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        a, b, _ = await three(worker)

        async def unanswered(orders: list[Order]) -> list[None]:
            return [None for _ in orders]

        worker.batcher._wait_s = 0.1
        with monkeypatch.context() as lost:
            lost.setattr(worker.gateway, "post", unanswered)
            order = await pay(worker, "p", {a: 1_000, b: 2_000})
            other = await pay(worker, "q", {a: 1, b: 2})
        async with any_state(worker.pool) as fund:
            await fund.execute("UPDATE fund.orders SET parts = $2::json WHERE id = $1", order.id, parts)
        await worker.recoverer.recover_some()
        assert await worker.accounts.voucher(order.voucher_id) is None
        assert await worker.value("SELECT state FROM fund.orders WHERE id = $1", other.id) == "posted"
        assert await worker.of(b) == (2, 0, 0)


async def test_terms_of_a_part_cannot_be_updated(worker: FundWorker) -> None:
    a, b, _ = await three(worker)
    await pay(worker, "p", {a: 1_000, b: 2_000})
    for edit in ("amount = 1", "merchant = 'x'", "fee = 0", "tax = 1", "kind = 'reversal'", "seq = 0"):
        with pytest.raises(asyncpg.CheckViolationError):
            await worker.value(f"UPDATE fund.split_parts SET {edit} WHERE merchant = $1", a)
