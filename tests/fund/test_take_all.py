"""Withdrawals of all: the amount is what the available balance leaves after the debt and the fee, decided once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import TAKE_ALL_ATTEMPTS_MAX, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX, Fee, FeeTier
from fundledger.fund.store.orders import read_order
from tests.fund.test_debts import owing
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

SUM = "SELECT coalesce(sum(amount), 0)::bigint FROM fund.withdrawal_days WHERE merchant = $1"


async def take_all(worker: FundWorker, merchant: str, number: str = "every", **more: Any) -> Any:
    members = {"merchant": merchant, "order_no": number, "channel": f"c-{worker.salt}", **more}
    return await worker.ask("withdrawal", **members, **({} if "amount" in more else {"all": True}))


def code_of(answer: Any) -> Code:
    assert isinstance(answer, Refusal), answer
    return answer.code


@pytest.mark.parametrize(
    ("fee", "balance", "amount", "charged"),
    [
        (None, 1_000, 1_000, 0),
        (None, 1, 1, 0),
        (None, AMOUNT_MAX, AMOUNT_MAX, 0),
        (Fee(fixed=2), 1_000, 998, 2),
        (Fee(minimum=1), 2, 1, 1),
        (Fee(basis_points=100), 1_000, 990, 10),
        (Fee(basis_points=10_000), AMOUNT_MAX, AMOUNT_MAX // 2, AMOUNT_MAX // 2),
        # 901 is in the cheap tier, and would leave 99. In the dear tier below it, the fee would be larger.
        (Fee(fixed=50, tiers=[FeeTier(900, 0, 5)]), 1_000, 995, 5),
        (Fee(fixed=50, tiers=[FeeTier(900, 0, 5)]), 904, 854, 50),
        # In the dear tier of the larger amounts nothing fits, so the largest amount of the cheap tier is withdrawn.
        (Fee(fixed=1, tiers=[FeeTier(950, 0, 500)]), 1_000, 949, 1),
    ],
)
async def test_the_largest_amount_whose_fee_fits_is_withdrawn(
    worker: FundWorker, fee: Fee | None, balance: int, amount: int, charged: int
) -> None:
    merchant = await worker.merchant(withdrawal_fee=fee)
    await worker.pay(merchant, "p", balance)
    taken = await take_all(worker, merchant)
    assert isinstance(taken, Taken), taken
    order = taken.order
    assert (order.state, order.amount, order.fee, order.takes_all) == (State.POSTED, amount, charged, True)
    assert await worker.of(merchant) == (balance - amount - charged, 0, 0)
    assert await worker.value(SUM, merchant) == amount


@pytest.mark.parametrize(("fee", "balance"), [(None, 0), (Fee(minimum=1), 1), (Fee(basis_points=10_000), 1)])
async def test_a_balance_that_the_fee_exhausts_is_not_withdrawn(
    worker: FundWorker, fee: Fee | None, balance: int
) -> None:
    merchant = await worker.merchant(withdrawal_fee=fee)
    if balance:
        await worker.pay(merchant, "p", balance)
    assert code_of(await take_all(worker, merchant)) is Code.NOTHING_TO_WITHDRAW
    assert await worker.value("SELECT count(*) FROM fund.orders WHERE kind = 'withdrawal'") == 0


async def test_the_debt_is_repaid_first(worker: FundWorker) -> None:
    merchant = await owing(worker, 300, has=1_000)
    order = (await take_all(worker, merchant)).order
    assert (order.amount, order.set_off) == (700, 300)
    assert await worker.of(merchant) == (0, 0, 0)
    poor = await owing(worker, 300, has=300, name="poor")
    assert code_of(await take_all(worker, poor)) is Code.NOTHING_TO_WITHDRAW
    assert await worker.of(poor) == (300, 0, 300)


async def test_a_replay_has_the_first_decision(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    first = (await take_all(worker, merchant)).order
    await worker.pay(merchant, "q", 500)
    again = await take_all(worker, merchant)
    assert again.replay
    assert (again.order.id, again.order.amount) == (first.id, 1_000)
    assert code_of(await take_all(worker, merchant, amount=1_000)) is Code.ORDER_NO_REUSED
    assert (await take_all(worker, merchant, "next")).order.amount == 500
    # A replay does not need a balance, and does not need a balance that can be withdrawn.
    assert (await take_all(worker, merchant)).order.amount == 1_000
    plain = await take_all(worker, merchant, "plain", amount=5)
    assert plain.order.state is State.REFUSED
    assert code_of(await take_all(worker, merchant, "plain")) is Code.ORDER_NO_REUSED


async def test_the_daily_limit_holds_for_all_as_for_an_amount(worker: FundWorker) -> None:
    merchant = await worker.merchant(withdrawal_limit=1_000)
    await worker.pay(merchant, "p", 1_001)
    assert code_of(await take_all(worker, merchant)) is Code.WITHDRAWAL_LIMIT_EXCEEDED
    await worker.debit(merchant, "a", 1)
    assert (await take_all(worker, merchant)).order.amount == 1_000
    await worker.pay(merchant, "q", 1)
    assert code_of(await take_all(worker, merchant, "more")) is Code.WITHDRAWAL_LIMIT_EXCEEDED


async def test_several_at_the_same_time_withdraw_the_balance_once(worker: FundWorker) -> None:
    merchant = await worker.merchant(withdrawal_fee=Fee(fixed=1))
    await worker.pay(merchant, "p", 1_000)
    answers = await asyncio.gather(*(take_all(worker, merchant, str(number)) for number in range(8)))
    posted = [each.order for each in answers if isinstance(each, Taken) and each.order.state is State.POSTED]
    assert sum(order.amount + order.fee for order in posted) == 1_000
    assert len(posted) == 1
    assert await worker.of(merchant) == (0, 0, 0)
    assert await worker.value(SUM, merchant) == 999


class Spending:
    """Spends from the merchant's balance after it was read, and before the voucher is posted."""

    def __init__(self, worker: FundWorker, merchant: str, amounts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        self._worker, self._merchant, self._amounts = worker, merchant, amounts
        self._read = worker.posting.debitable
        monkeypatch.setattr(worker.posting, "debitable", self.debitable)

    async def debitable(self, merchant: str) -> int:
        found = await self._read(merchant)
        if merchant == self._merchant and self._amounts:
            await self._worker.debit(merchant, f"slip-{len(self._amounts)}", self._amounts.pop())
        return found


async def attempt_of(worker: FundWorker, merchant: str) -> Order:
    id_ = await worker.value("SELECT id FROM fund.orders WHERE merchant = $1 AND takes_all", merchant)
    order = await read_order(worker.pool, id_)
    assert order is not None
    assert worker.macs.verifies(order)
    return order


@pytest.mark.parametrize("spent", [[100], [100, 200], [100, 200, 300]])
async def test_a_balance_that_falls_is_withdrawn_by_the_next_attempt(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, spent: list[int]
) -> None:
    merchant = await worker.merchant(withdrawal_fee=Fee(fixed=1))
    await worker.pay(merchant, "p", 1_000)
    Spending(worker, merchant, list(spent), monkeypatch)
    order = (await take_all(worker, merchant)).order
    assert (order.state, order.attempt, order.amount, order.fee) == (State.POSTED, len(spent), 999 - sum(spent), 1)
    assert await worker.of(merchant) == (0, 0, 0)
    assert await worker.value(SUM, merchant) == order.amount
    assert (await attempt_of(worker, merchant)).amount == order.amount
    ended = await worker.batcher.end(order.id, "bounced", None, "closed", "bank")
    assert isinstance(ended, Taken)
    assert await worker.of(merchant) == (1_000 - sum(spent), 0, 0)
    assert await worker.value(SUM, merchant) == 0


@pytest.mark.parametrize("spent", [[1] * (TAKE_ALL_ATTEMPTS_MAX + 1), [1_000], [999]])
async def test_a_withdrawal_that_finds_no_amount_is_refused_and_reserves_nothing(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, spent: list[int]
) -> None:
    merchant = await worker.merchant(withdrawal_fee=Fee(fixed=1))
    await worker.pay(merchant, "p", 1_000)
    Spending(worker, merchant, list(spent), monkeypatch)
    order = (await take_all(worker, merchant)).order
    assert order.state is State.REFUSED
    assert order.attempt == (TAKE_ALL_ATTEMPTS_MAX if len(spent) > 1 else 0)
    assert await worker.of(merchant) == (1_000 - sum(spent), 0, 0)
    assert await worker.value(SUM, merchant) == 0
    assert (await take_all(worker, merchant)).order.state is State.REFUSED


async def test_a_chargeback_that_comes_between_is_not_withdrawn(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "q", 500)
    read, asked = worker.posting.debitable, []

    async def then_charged_back(whose: str) -> int:
        found = await read(whose)
        asked.append(whose)
        if len(asked) == 1:
            members = {"merchant": merchant, "payment_order_no": "q", "amount": 500}
            await worker.done("chargeback", order_no="c", **members)
        return found

    monkeypatch.setattr(worker.posting, "debitable", then_charged_back)
    order = (await take_all(worker, merchant)).order
    assert (order.state, order.amount, order.attempt) == (State.POSTED, 1_000, 1)
    assert await worker.of(merchant) == (0, 0, 0)


async def test_a_withdrawal_whose_attempt_was_cut_off_is_completed_by_the_recoverer(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed after the order is recorded. Then the merchant spends, and the recoverer finds less."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)

    async def cut(*_: object) -> None:
        raise GatewayFault("cut")

    with monkeypatch.context() as killed:
        killed.setattr(worker.gateway, "post_vouchers", cut)
        killed.setattr(worker.batcher, "_wait_s", 0.05)
        answer = await take_all(worker, merchant)
        assert isinstance(answer, Taken)
        assert (answer.order.state, answer.order.amount) == (State.POSTING, 1_000)
    await worker.debit(merchant, "slip", 300)
    await worker.start_worker()
    for _ in range(3):
        await worker.recoverer.recover_some()
    order = await attempt_of(worker, merchant)
    assert (order.state, order.amount, order.attempt) == (State.POSTED, 700, 1)
    assert await worker.of(merchant) == (0, 0, 0)


@pytest.fixture
async def unproved(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        yield worker


@pytest.mark.parametrize("table", ["merchants", "debts", "withdrawal_days"])
async def test_no_attempt_is_made_by_a_row_that_was_edited(
    unproved: FundWorker, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    worker = unproved
    merchant = await owing(worker, 50, has=1_000)
    read = worker.posting.debitable
    edited: list[str] = []

    async def then_edited(whose: str) -> int:
        found = await read(whose)
        if not edited:
            await worker.debit(merchant, "slip", 100)
        elif len(edited) == 1:
            column = "id" if table == "merchants" else "merchant"
            edit = f"UPDATE fund.{table} SET mac = 'x' WHERE {column} = $1 RETURNING 1"
            assert await worker.value(edit, merchant) == 1
        edited.append(whose)
        return found

    monkeypatch.setattr(worker.posting, "debitable", then_edited)
    answer = await take_all(worker, merchant)
    if isinstance(answer, Taken):
        assert answer.order.state is State.REFUSED
    else:
        assert isinstance(answer, OrderFault)
    assert len(edited) == 2
    assert await worker.of(merchant) == (900, 0, 50)


async def test_one_that_gets_no_further_attempt_is_refused(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the tests above: a refusal for lack of money is final."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    Spending(worker, merchant, [100], monkeypatch)
    monkeypatch.setattr("fundledger.fund.store.take_all.may_try_again", lambda *_: False)
    assert (await take_all(worker, merchant)).order.state is State.REFUSED
