"""The way back of each kind of order: its reversal undoes exactly what it moved, once, and only while nothing depends on
it.
"""

import asyncio
from typing import Any

import pytest

from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from tests.fund.test_debts import owing, undecided, withdraw
from tests.support.currencies import unused_currency
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.running import RunningService

CURRENCY = unused_currency()


def refused(answer: Any, code: Code, field: str | None = "of_order_no") -> bool:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field), answer
    return True


async def reverse(worker: FundWorker, order: Order, number: str = "rev") -> Any:
    named = {"of_kind": str(order.kind), "of_order_no": order.order_no, "reason": "r"}
    owner = {} if order.merchant == "platform" else {"merchant": order.merchant}
    return await worker.ask("reversal", order_no=f"{number}-{order.order_no}"[:64], **named, **owner)


async def all_of(worker: FundWorker, merchant: str) -> dict[str, int]:
    """Return the balances of a merchant and of the platform that the orders of this file move."""
    names = [f"merchant:{merchant}:{name}" for name in ("available", "pending", "receivable", "reserve")]
    channel = f"c-{worker.salt}"
    of_platform = ("income:fee", "income:other", "expense:loss", "suspense:over", "suspense:short", "equity:own")
    names += [f"{name}:{CURRENCY}" for name in (*of_platform, f"bank:{channel}", f"payable:{channel}")]
    return {name: await worker.balance(name) for name in names}


ORDERS: dict[str, dict[str, Any]] = {
    "top_up": {"currency": CURRENCY, "channel": True},
    "recovery": {},
    "write_off": {"reason": "r"},
    "dispute_fee": {"channel": True},
    "own_funds in": {"direction": "in", "reason": "r", "currency": CURRENCY, "channel": True, "channel_ref": "IN"},
    "own_funds out": {"direction": "out", "reason": "r", "currency": CURRENCY, "channel": True, "channel_ref": "OUT"},
    "fee_sweep": {"reason": "r", "currency": CURRENCY, "channel": True},
    "payable_payment": {"currency": CURRENCY, "channel": True},
    "suspense_clearing income": {"direction": "more", "against": "income", "reason": "r", "currency": CURRENCY},
    "suspense_clearing merchant": {"direction": "more", "against": "merchant", "reason": "r", "currency": CURRENCY},
    "suspense_clearing short": {"direction": "less", "against": "merchant", "reason": "r", "currency": CURRENCY},
    "settlement": {},
    "settlement part": {"amount": 300},
}
OF_PLATFORM = ("own_funds", "fee_sweep", "payable_payment", "suspense_clearing income")


@pytest.mark.parametrize("name", ORDERS)
async def test_a_reversal_undoes_exactly_what_the_order_moved(worker: FundWorker, name: str) -> None:
    """The merchant owes 60 and has 500, of which an order of 40 moves a part."""
    channel = f"c-{worker.salt}"
    merchant = await worker.merchant("m", CURRENCY, fee=Fee(basis_points=1_000))
    more = {"currency": CURRENCY, "channel": channel}
    await worker.pay(merchant, "p", 1_000, **more)
    await worker.pay(merchant, "later", 500, settle="later", **more)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=400, channel=channel)
    await worker.done("own_funds", order_no=f"x-{worker.salt}", amount=100, reason="r", direction="in", **more)
    fee = {"merchant": merchant, "order_no": "x", "amount": 50, "channel": channel, "against": "payable"}
    await worker.done("dispute_fee", **fee)
    for direction in ("more", "less"):
        number = f"{direction}-{worker.salt}"
        await worker.done("bank_difference", order_no=number, amount=70, reason="r", direction=direction, **more)
    if name in ("recovery", "write_off", "top_up", "suspense_clearing merchant") or name.startswith("settlement"):
        await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "debits")
        await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="p", amount=60)
        await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    before = await all_of(worker, merchant)
    kind = name.partition(" ")[0]
    members = {**ORDERS[name], **({"channel": channel} if ORDERS[name].get("channel") else {})}
    owner = {} if name.startswith(OF_PLATFORM) else {"merchant": merchant}
    amount = {} if kind == "settlement" else {"amount": 40}
    order = await worker.done(kind, order_no=f"o-{worker.salt}", **owner, **amount, **members)
    assert order.state is State.POSTED
    moved = await all_of(worker, merchant)
    assert moved != before
    answer = await reverse(worker, order)
    assert isinstance(answer, Taken), answer
    assert answer.order.state is State.POSTED
    assert await all_of(worker, merchant) == before
    debt = before[f"merchant:{merchant}:receivable"]
    assert (await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) or 0) == debt
    assert refused(await reverse(worker, order, "again"), Code.ORDER_ALREADY_REVERSED)
    # The same order can be sent once more, under another number.
    members |= {"channel_ref": members["channel_ref"]} if "channel_ref" in members else {}
    again = await worker.done(kind, order_no=f"o2-{worker.salt}", **owner, **amount, **members)
    assert again.state is State.POSTED
    assert await all_of(worker, merchant) == moved


async def test_a_payment_of_a_reversed_settlement_is_pending_again_with_its_fee(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    for n in range(3):
        await worker.pay(merchant, f"p{n}", 1_000, settle="later")
    first = await worker.done("settlement", merchant=merchant, order_no="1", amount=1_500)
    await worker.done("settlement", merchant=merchant, order_no="2", amount=1_000)
    assert await worker.of(merchant) == (2_475, 500, 0)
    assert isinstance(await reverse(worker, first), Taken)
    assert await worker.of(merchant) == (990, 2_000, 0)
    refund = await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p0", amount=1_000)
    assert (refund.from_pending, refund.fee_waived, refund.fee) == (1_000, 10, 0)
    rest = await worker.done("settlement", merchant=merchant, order_no="3")
    assert (rest.amount, rest.fee) == (1_000, 10)
    assert await worker.of(merchant) == (1_980, 0, 0)


@pytest.mark.parametrize("back", ["refund", "chargeback", "dispute"])
async def test_a_settlement_whose_money_is_gone_cannot_be_reversed(worker: FundWorker, back: str) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    await worker.pay(merchant, "p", 1_000, settle="later")
    order = await worker.done("settlement", merchant=merchant, order_no="s", amount=600)
    about = {"merchant": merchant, "payment_order_no": "p"}
    # The pending part comes first.
    await worker.done(back, order_no="1", amount=400, **about)
    waits = {"of_kind": "settlement", "of_order_no": "s", "reason": "r", "merchant": merchant}
    asked = await worker.requested("reversal", order_no="waits", **waits)
    await worker.done(back, order_no="2", amount=1, **about)
    assert refused(await worker.batcher.approve(asked.id, CHECKER), Code.ORDER_NOT_REVERSIBLE)
    assert refused(await reverse(worker, order), Code.ORDER_NOT_REVERSIBLE)


async def test_a_settlement_that_was_withdrawn_stays(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000, settle="later")
    order = await worker.done("settlement", merchant=merchant, order_no="s")
    assert isinstance(await withdraw(worker, merchant, "w", 1), Taken)
    answer = await reverse(worker, order)
    assert isinstance(answer, Taken)
    assert answer.order.state is State.REFUSED
    assert await worker.of(merchant) == (999, 0, 0)
    await worker.pay(merchant, "q", 1)
    again = await reverse(worker, order, "again")
    assert isinstance(again, Taken)
    assert again.order.state is State.POSTED
    assert await worker.of(merchant) == (0, 1_000, 0)


async def test_no_refund_passes_the_reversal_of_a_settlement(worker: FundWorker) -> None:
    """Otherwise the refund could take a pending part that is not pending if the reversal is refused."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000, settle="later")
    order = await worker.done("settlement", merchant=merchant, order_no="s")
    assert isinstance(await reverse(worker, order), Taken)
    refund = {"merchant": merchant, "order_no": "r", "payment_order_no": "p", "amount": 5}
    async with undecided(worker, "rev-s", "posting"):
        assert refused(await worker.ask("refund", **refund), Code.PAYMENT_BEING_SETTLED, "payment_order_no")
    assert (await worker.done("refund", **refund)).from_pending == 5


async def test_a_reversed_write_off_is_owed_again(worker: FundWorker) -> None:
    merchant = await owing(worker, 100)
    order = await worker.done("write_off", merchant=merchant, order_no="o", amount=80, reason="r")
    assert isinstance(await reverse(worker, order), Taken)
    assert await worker.of(merchant) == (0, 0, 100)
    await worker.pay(merchant, "next", 130)
    assert await worker.of(merchant) == (30, 0, 0)


async def test_a_dispute_fee_that_became_a_debt_is_not_reversed(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    order = await worker.done("dispute_fee", merchant=merchant, order_no="f", amount=5, channel=f"c-{worker.salt}")
    assert refused(await reverse(worker, order), Code.ORDER_NOT_REVERSIBLE)
    assert await worker.of(merchant) == (0, 0, 5)


async def test_a_top_up_that_was_parked_is_not_reversed(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    available = f"merchant:{merchant}:available"
    await worker.accounts.freeze(available, "tests", "all")
    members = {"merchant": merchant, "amount": 5, "currency": "CNY", "channel": f"c-{worker.salt}"}
    order = await worker.done("top_up", order_no="t", **members)
    assert refused(await reverse(worker, order), Code.ORDER_NOT_REVERSIBLE)
    await worker.accounts.unfreeze(available)
    await worker.batcher.retry(order.id, "tester")
    assert refused(await reverse(worker, order), Code.ORDER_NOT_REVERSIBLE)


TAKEN: dict[str, tuple[Code, dict[str, Any], dict[str, Any]]] = {
    # The order of 100, and the order that takes 60 of it.
    "own_funds": (
        Code.OWN_FUNDS_EXCEEDED,
        {"kind": "own_funds", "direction": "in"},
        {"kind": "own_funds", "direction": "out"},
    ),
    "bank_difference": (
        Code.SUSPENSE_EXCEEDED,
        {"kind": "bank_difference", "direction": "more"},
        {"kind": "suspense_clearing", "direction": "more", "against": "income", "channel": None},
    ),
    "shortage": (
        Code.SUSPENSE_EXCEEDED,
        {"kind": "bank_difference", "direction": "less"},
        {"kind": "suspense_clearing", "direction": "less", "against": "loss", "channel": None},
    ),
    "dispute_fee": (
        Code.PAYABLE_EXCEEDED,
        {"kind": "dispute_fee", "against": "payable", "merchant": True, "currency": None},
        {"kind": "payable_payment"},
    ),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_an_amount_that_another_order_has_taken_is_not_undone(worker: FundWorker, name: str) -> None:
    """After the reversal of the other order it is."""
    code, first, second = TAKEN[name]
    currency = "TWD"
    merchant = await worker.merchant("m", currency)
    shared = {"currency": currency, "channel": f"c-{worker.salt}", "reason": "r"}
    await worker.pay(merchant, "p", 1_000, currency=currency)
    orders = []
    for number, amount, members in ((1, 100, first), (2, 60, second)):
        given = {**shared, "order_no": f"{number}-{worker.salt}", "amount": amount, **members}
        given |= {"merchant": merchant} if members.get("merchant") else {}
        orders.append(await worker.done(**{name: value for name, value in given.items() if value is not None}))
    assert refused(await reverse(worker, orders[0], "no"), code)
    for order in reversed(orders):
        answer = await reverse(worker, order)
        assert isinstance(answer, Taken), answer
        assert answer.order.state is State.POSTED
    assert await worker.of(merchant) == (1_000, 0, 0)


async def test_of_a_reversal_and_an_order_that_takes_the_amount_one_is_approved(worker: FundWorker) -> None:
    shared = {"currency": "ILS", "channel": f"c-{worker.salt}", "reason": "r", "amount": 100}
    order = await worker.done("own_funds", order_no=f"in-{worker.salt}", direction="in", **shared)
    out = await worker.requested("own_funds", order_no=f"out-{worker.salt}", direction="out", **shared)
    of = {"of_kind": "own_funds", "of_order_no": order.order_no, "reason": "r"}
    back = await worker.requested("reversal", order_no=f"back-{worker.salt}", **of)
    answers = await asyncio.gather(*(worker.batcher.approve(each.id, CHECKER) for each in (out, back)))
    (no,) = [answer for answer in answers if not isinstance(answer, Taken)]
    assert isinstance(no, Refusal)
    assert no.code is Code.OWN_FUNDS_EXCEEDED
    assert await worker.balance("equity:own:ILS") == 0


async def test_the_receipts_of_reversed_orders_are_free(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    members = {"amount": 5, "currency": "CNY", "channel": f"c-{worker.salt}", "channel_ref": "R"}
    order = await worker.done("top_up", merchant=merchant, order_no="t", **members)
    assert isinstance(await reverse(worker, order), Taken)
    assert (await worker.done("payment", merchant=merchant, order_no="p", **members)).state is State.POSTED


async def test_of_concurrent_reversals_one_is_posted(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000, settle="later")
    order = await worker.done("settlement", merchant=merchant, order_no="s")
    answers = await asyncio.gather(*(reverse(worker, order, str(n)) for n in range(8)))
    assert sum(isinstance(answer, Taken) for answer in answers) == 1
    assert await worker.of(merchant) == (0, 1_000, 0)


@pytest.mark.parametrize("edit", ["payments", "settled_payments"])
async def test_the_reversal_of_a_settlement_stops_at_an_edited_row(
    fund_database: str, service: RunningService, edit: str
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant()
        await worker.pay(merchant, "p", 1_000, settle="later")
        order = await worker.done("settlement", merchant=merchant, order_no="s")
        async with worker.pool.acquire() as connection, connection.transaction():
            await connection.execute("ALTER TABLE fund.settled_payments DISABLE TRIGGER ALL")
            change = (
                "UPDATE fund.payments SET refunded = 1"
                if edit == "payments"
                else ("UPDATE fund.settled_payments SET amount = 999")
            )
            await connection.execute(change)
            await connection.execute(
                "ALTER TABLE fund.settled_payments ENABLE ALWAYS TRIGGER settled_payments_append_only"
            )
            await connection.execute(
                "ALTER TABLE fund.settled_payments ENABLE ALWAYS TRIGGER settled_payments_no_truncate"
            )
        fault = await reverse(worker, order)
        assert isinstance(fault, OrderFault), fault
        assert fault.tampered
        assert await worker.of(merchant) == (1_000, 0, 0)
