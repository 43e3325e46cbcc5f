"""Debts of merchants: each credit repays them, a withdrawal leaves nothing owed, and a chargeback takes pending money
first.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.length import unless_long
from tests.support.running import RunningService
from tests.support.tampering import any_state

FEE = Fee(basis_points=100)


async def charge_back(worker: FundWorker, merchant: str, payment: str, amount: int, number: str = "cb") -> Order:
    members = {"merchant": merchant, "payment_order_no": payment, "amount": amount}
    return await worker.done("chargeback", order_no=number, **members)


async def withdraw(worker: FundWorker, merchant: str, number: str, amount: int) -> Any:
    return await worker.ask("withdrawal", merchant=merchant, order_no=number, amount=amount, channel=f"c-{worker.salt}")


async def owing(worker: FundWorker, owed: int, has: int = 0, name: str = "m") -> str:
    """Return a merchant that owes `owed` and has `has` available."""
    merchant = await worker.merchant(name)
    await worker.pay(merchant, "first", owed)
    assert isinstance(await withdraw(worker, merchant, "all", owed), Taken)
    if has:
        await worker.pay(merchant, "has", has)
        await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "debits")
    await charge_back(worker, merchant, "first", owed)
    if has:
        await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    assert await worker.of(merchant) == (has, 0, owed)
    return merchant


async def test_a_chargeback_takes_the_pending_part_of_its_payment_and_waives_its_fee(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000, settle="later")
    order = await charge_back(worker, merchant, "p", 10_000)
    assert (order.from_pending, order.fee_waived, order.to_receivable) == (10_000, 100, 0)
    assert await worker.of(merchant) == (0, 0, 0)
    nothing = await worker.ask("settlement", merchant=merchant, order_no="s")
    assert isinstance(nothing, Refusal)
    assert nothing.code is Code.NOTHING_TO_SETTLE


async def test_a_chargeback_of_a_partly_settled_payment_takes_the_pending_part_first(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000, settle="later")
    await worker.done("settlement", merchant=merchant, order_no="s1", amount=4_000)
    order = await charge_back(worker, merchant, "p", 7_000)
    assert (order.from_pending, order.fee_waived, order.to_receivable) == (6_000, 60, 0)
    assert await worker.of(merchant) == (3_960 - 1_000, 0, 0)
    more = await charge_back(worker, merchant, "p", 3_000, "cb2")
    assert (more.from_pending, more.to_receivable) == (0, 40)
    assert await worker.of(merchant) == (0, 0, 40)


async def test_who_owes_cannot_withdraw_what_comes_in(worker: FundWorker) -> None:
    merchant = await owing(worker, 10_000)
    paid = await worker.pay(merchant, "next", 20_000)
    assert paid.set_off == 10_000
    assert await worker.of(merchant) == (10_000, 0, 0)
    short = await withdraw(worker, merchant, "w", 10_001)
    assert short.order.state is State.REFUSED
    assert (await withdraw(worker, merchant, "w2", 10_000)).order.state is State.POSTED


@pytest.mark.parametrize("credit", ["payment", "settlement", "bounce", "adjustment"])
@pytest.mark.parametrize("amount", [60, 100, 101])
async def test_each_credit_repays_the_debt_in_its_voucher(worker: FundWorker, credit: str, amount: int) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "first", 100 + amount)
    out = (await withdraw(worker, merchant, "out", amount)).order
    assert isinstance(await withdraw(worker, merchant, "rest", 100), Taken)
    await charge_back(worker, merchant, "first", 100)
    if credit == "payment":
        order = await worker.pay(merchant, "next", amount)
    elif credit == "settlement":
        await worker.pay(merchant, "next", amount, settle="later")
        assert await worker.of(merchant) == (0, amount, 100)
        order = await worker.done("settlement", merchant=merchant, order_no="s")
    elif credit == "bounce":
        ended = await worker.batcher.end(out.id, "bounced", None, "closed", "bank")
        assert isinstance(ended, Taken)
        order = ended.order
    else:
        members = {"merchant": merchant, "amount": amount, "direction": "credit", "reason": "r"}
        await worker.requested("adjustment", order_no="waits", **members)
        assert await worker.of(merchant) == (0, 0, 100)
        order = await worker.done("adjustment", order_no="a", **members)
    repaid = min(100, amount)
    assert (order.end_set_off if credit == "bounce" else order.set_off) == repaid
    assert await worker.of(merchant) == (amount - repaid, 0, 100 - repaid)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 100 - repaid


async def test_a_withdrawal_also_repays_the_debt_and_takes_only_what_is_left(worker: FundWorker) -> None:
    merchant = await owing(worker, 100, has=250)
    for number, amount in (("more", 151), ("whole", 250)):
        assert (await withdraw(worker, merchant, number, amount)).order.state is State.REFUSED
        assert await worker.of(merchant) == (250, 0, 100)
    taken = (await withdraw(worker, merchant, "rest", 150)).order
    assert (taken.state, taken.set_off) == (State.POSTED, 100)
    assert await worker.of(merchant) == (0, 0, 0)


async def test_a_recovery_or_a_write_off_takes_no_more_than_the_debt(worker: FundWorker) -> None:
    merchant = await owing(worker, 100, has=250)
    for kind in ("recovery", "write_off"):
        why = {} if kind == "recovery" else {"reason": "r"}
        more = await worker.ask(kind, merchant=merchant, order_no="more", amount=101, **why)
        assert isinstance(more, Refusal)
        assert (more.code, more.field) == (Code.DEBT_EXCEEDED, "amount")
    await worker.done("recovery", merchant=merchant, order_no="r", amount=60)
    await worker.done("write_off", merchant=merchant, order_no="w", amount=40, reason="r")
    assert await worker.of(merchant) == (190, 0, 0)


async def test_a_write_off_that_waits_reserves_nothing(worker: FundWorker) -> None:
    """Its approval reserves, and is refused if the debt was repaid meanwhile."""
    merchant = await owing(worker, 100, has=250)
    asked = await worker.requested("write_off", merchant=merchant, order_no="w", amount=100, reason="r")
    await worker.done("recovery", merchant=merchant, order_no="r", amount=60)
    refused = await worker.batcher.approve(asked.id, CHECKER)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.field) == (Code.DEBT_EXCEEDED, "amount")
    taken = (await withdraw(worker, merchant, "rest", 150)).order
    assert (taken.state, taken.set_off) == (State.POSTED, 40)
    assert await worker.of(merchant) == (0, 0, 0)
    rejected = await worker.batcher.reject(asked.id, "paid meanwhile", CHECKER)
    assert isinstance(rejected, Taken)
    assert rejected.order.state is State.REJECTED


async def test_a_reversal_that_waits_blocks_nothing(worker: FundWorker) -> None:
    """Its approval reserves, and is refused if the payment was refunded meanwhile."""
    merchant = await owing(worker, 100)
    await worker.pay(merchant, "next", 130)
    members = {"merchant": merchant, "of_kind": "payment", "of_order_no": "next", "reason": "r"}
    asked = await worker.requested("reversal", order_no="rev", **members)
    assert (await withdraw(worker, merchant, "out", 10)).order.state is State.POSTED
    await worker.done("refund", merchant=merchant, order_no="back", payment_order_no="next", amount=20)
    refused = await worker.batcher.approve(asked.id, CHECKER)
    assert isinstance(refused, Refusal)
    assert refused.code is Code.ORDER_NOT_REVERSIBLE
    assert await worker.of(merchant) == (0, 0, 0)


async def test_a_refused_credit_gives_its_set_off_back(worker: FundWorker) -> None:
    merchant = await owing(worker, 100)
    await worker.pay(merchant, "later", 130, settle="later")
    await worker.accounts.freeze(f"merchant:{merchant}:pending", "tests", "all")
    refused = await worker.done("settlement", merchant=merchant, order_no="no")
    assert (refused.state, refused.set_off) == (State.REFUSED, 100)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 100
    await worker.accounts.unfreeze(f"merchant:{merchant}:pending")
    await worker.done("settlement", merchant=merchant, order_no="yes")
    assert await worker.of(merchant) == (30, 0, 0)


async def test_a_reversal_of_a_credit_that_repaid_brings_the_debt_back(worker: FundWorker) -> None:
    merchant = await owing(worker, 100)
    await worker.pay(merchant, "next", 130)
    members = {"merchant": merchant, "of_kind": "payment", "of_order_no": "next", "reason": "r"}
    order = await worker.done("reversal", order_no="rev", **members)
    assert order.to_receivable == 100
    assert await worker.of(merchant) == (0, 0, 100)
    await worker.pay(merchant, "again", 40)
    assert await worker.of(merchant) == (0, 0, 60)


@contextlib.asynccontextmanager
async def undecided(worker: FundWorker, number: str, state: str) -> AsyncIterator[None]:
    """Let an order have the state that it would have if the recording of its outcome were lost."""
    change = "UPDATE fund.orders SET state = $2, posted_at = $3 WHERE order_no = $1"
    before = await worker.pool.fetchrow("SELECT state, posted_at FROM fund.orders WHERE order_no = $1", number)
    posted_at = before["posted_at"] if state == "posted" else None
    async with any_state(worker.pool) as fund:
        await fund.execute(change, number, state, posted_at)
    yield
    async with any_state(worker.pool) as fund:
        await fund.execute(change, number, *before)


@pytest.mark.parametrize(
    "first", ["withdrawal", "recovery", "write_off", "reversal", "payment", "settlement", "bounce"]
)
async def test_no_withdrawal_passes_an_order_that_may_change_the_debt(worker: FundWorker, first: str) -> None:
    """Otherwise the order could be refused, and its set-off would come back after the money is gone."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "a", 300)
    out = (await withdraw(worker, merchant, "out", 40)).order
    await worker.pay(merchant, "later", 10, settle="later")
    await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "debits")
    await charge_back(worker, merchant, "a", 100)
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    named: dict[str, Any] = {"merchant": merchant, "order_no": "first"}
    if first == "withdrawal":
        await withdraw(worker, merchant, "first", 50)
    elif first == "recovery":
        await worker.done("recovery", **named, amount=5)
    elif first == "write_off":
        await worker.done("write_off", **named, amount=5, reason="r")
    elif first in ("payment", "reversal"):
        await worker.pay(merchant, "first" if first == "payment" else "paid", 7)
        if first == "reversal":
            await worker.done("reversal", **named, of_kind="payment", of_order_no="paid", reason="r")
    elif first == "settlement":
        await worker.done("settlement", **named)
    else:
        await worker.batcher.end(out.id, "bounced", None, "closed", "bank")
    # An order whose end is not posted yet keeps the state that it had.
    number, state = ("out", "posted") if first == "bounce" else ("first", "posting")
    async with undecided(worker, number, state):
        no = await withdraw(worker, merchant, "w", 5)
        assert isinstance(no, Refusal), no
        assert no.code is Code.DEBT_IN_PROGRESS
    assert (await withdraw(worker, merchant, "w", 5)).order.state is State.POSTED


async def test_of_two_concurrent_withdrawals_none_takes_what_is_owed(worker: FundWorker) -> None:
    for turn in range(unless_long(10, 300)):
        merchant = await owing(worker, 100, has=250, name=f"m{turn}")
        answers = await asyncio.gather(withdraw(worker, merchant, "1", 251), withdraw(worker, merchant, "2", 250))
        assert not any(isinstance(answer, Taken) and answer.order.state is State.POSTED for answer in answers), answers
        assert await worker.of(merchant) == (250, 0, 100)


async def test_a_debt_that_was_edited_while_it_grew_is_not_lost(fund_database: str, service: RunningService) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await owing(worker, 100)
        await worker.pay(merchant, "p", 30)
        row = await worker.pool.fetchrow("SELECT owed, mac_key, mac FROM fund.debts WHERE merchant = $1", merchant)
        await worker.value("UPDATE fund.debts SET owed = 9 WHERE merchant = $1", merchant)
        await charge_back(worker, merchant, "p", 30, "cb2")
        back = "UPDATE fund.debts SET owed = $2, mac_key = $3, mac = $4 WHERE merchant = $1 AND mac_key <> 0"
        assert await worker.pool.execute(back, merchant, *row) == "UPDATE 0"
        await worker.pay(merchant, "q", 200)
        assert await worker.of(merchant) == (100, 0, 0)
        assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 0


async def test_no_withdrawal_passes_a_chargeback_on_its_way(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    paid = await worker.pay(merchant, "p", 100)
    await worker.pay(merchant, "q", 100)
    await charge_back(worker, merchant, "p", 1)
    change = "UPDATE fund.orders SET {} WHERE kind = 'chargeback' AND merchant = $1"
    for state in (
        "state = 'posting'",
        "state = 'stuck', stuck_from = 'posting', problem = '[]'",
    ):
        async with worker.pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute("ALTER TABLE fund.orders DISABLE TRIGGER orders_transition")
            await connection.execute(change.format(state), merchant)
        no = await withdraw(worker, merchant, "w", 5)
        assert isinstance(no, Refusal)
        assert no.code is Code.DEBT_IN_PROGRESS
    async with worker.pool.acquire() as connection, connection.transaction():
        await connection.execute(change.format("state = 'posted', stuck_from = NULL, problem = NULL"), merchant)
        await connection.execute("ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_transition")
    assert (await withdraw(worker, merchant, "w", 5)).order.state is State.POSTED
    assert paid.set_off == 0


@pytest.mark.parametrize("edit", ["UPDATE fund.debts SET owed = 1 WHERE merchant = $1", None])
async def test_a_debt_that_was_edited_stops_withdrawals_and_no_credit(
    fund_database: str, service: RunningService, edit: str | None
) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await owing(worker, 100, has=50)
        async with worker.pool.acquire() as connection, connection.transaction():
            await connection.execute("ALTER TABLE fund.debts DISABLE TRIGGER ALL")
            await connection.execute(edit or "DELETE FROM fund.debts WHERE merchant = $1", merchant)
            await connection.execute("ALTER TABLE fund.debts ENABLE ALWAYS TRIGGER debts_no_delete")
        no = await withdraw(worker, merchant, "w", 5)
        assert isinstance(no, OrderFault)
        assert no.tampered
        assert merchant in no.detail
        recovery = await worker.ask("recovery", merchant=merchant, order_no="r", amount=5)
        assert isinstance(recovery, OrderFault)
        paid = await worker.pay(merchant, "next", 70)
        assert (paid.state, paid.set_off) == (State.POSTED, 0)
        assert await worker.of(merchant) == (120, 0, 100)


async def test_concurrent_credits_and_withdrawals_repay_each_debt_once(
    worker: FundWorker, service: RunningService
) -> None:
    """The platform is never out of pocket: in the end a merchant that owes has nothing available."""
    pick = random.Random(7)
    other = FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt)
    async with other:
        for turn in range(unless_long(4, 100)):
            merchant = await worker.merchant(f"t{turn}")
            for n in range(6):
                await worker.pay(merchant, f"p{n}", 1_000, settle=("now", "later")[n % 2])

            def some(n: int, merchant: str = merchant) -> Any:
                by, amount, no = (worker, other)[n % 2], pick.randint(1, 900), f"{n}"
                if n % 5 == 0:
                    at = {"payment_order_no": f"p{n // 5 % 6}", "amount": 1_000}
                    return by.ask("chargeback", merchant=merchant, order_no=no, **at)
                if n % 5 == 1:
                    return withdraw(by, merchant, no, amount)
                if n % 5 == 2:
                    return by.ask("settlement", merchant=merchant, order_no=no)
                return by.ask(
                    "payment", merchant=merchant, order_no=no, amount=amount, currency="CNY", channel=f"c-{by.salt}"
                )

            answers = await asyncio.gather(*(some(n) for n in range(30)))
            assert not [answer for answer in answers if isinstance(answer, OrderFault)]
            available, _, receivable = await worker.of(merchant)
            owed = await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant)
            assert (owed or 0) == receivable
            if available and receivable:
                # A chargeback may owe although a credit was posted meanwhile: the next credit or withdrawal repays.
                await worker.pay(merchant, "last", receivable)
                assert (await worker.of(merchant))[2] == 0
