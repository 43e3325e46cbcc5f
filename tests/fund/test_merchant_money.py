"""Money of merchants that no payment moves: top-ups, transfers between merchants, and reserves."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fundledger.client.faults import Unavailable
from fundledger.fund.jobs.release import Releaser
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.change_requests import FeeRuleBody
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.merchant_requests import Transfer
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX
from tests.fund.test_debts import owing, undecided, withdraw
from tests.support.fund_worker import EveryChannel, FundWorker, request_of
from tests.support.running import RunningService


def refused(answer: Any, code: Code, field: str | None = "amount") -> bool:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field), answer
    return True


def outcome(answer: Any) -> State:
    assert isinstance(answer, Taken), answer
    return answer.order.state


# --- Top-ups --------------------------------------------------------------------------------------------------------


async def top_up(worker: FundWorker, merchant: str, number: str, amount: int, **more: Any) -> Any:
    members = {"currency": "CNY", "channel": f"c-{worker.salt}", **more}
    return await worker.ask("top_up", merchant=merchant, order_no=number, amount=amount, **members)


async def test_a_top_up_repays_the_debt_and_charges_no_fee_of_payments(worker: FundWorker) -> None:
    merchant = await owing(worker, 100)
    rule = FeeRuleBody(product="payment", basis_points=1_000, effective_at=datetime(2126, 1, 1, tzinfo=UTC))
    await worker.approved(ChangeKind.FEE_RULE, f"{merchant} payment *", rule)
    answer = await top_up(worker, merchant, "t", 250, channel_ref="R")
    assert (answer.order.state, answer.order.set_off, answer.order.fee) == (State.POSTED, 100, 0)
    assert await worker.of(merchant) == (150, 0, 0)
    pay = {"merchant": merchant, "amount": 5, "currency": "CNY", "channel": f"c-{worker.salt}"}
    no = await worker.ask("payment", order_no="p", channel_ref="R", **pay)
    assert refused(no, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    assert (await withdraw(worker, merchant, "out", 150)).order.state is State.POSTED


async def test_a_top_up_charges_the_fee_of_its_own_rule(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    soon = datetime.now(UTC) + timedelta(minutes=1)
    await worker.approved(
        ChangeKind.FEE_RULE, f"{merchant} top_up *", FeeRuleBody(fixed=7, product="top_up", effective_at=soon)
    )
    await worker.merchants.look()
    worker.days_back = -1
    answer = await top_up(worker, merchant, "t", 100)
    assert (answer.order.fee, answer.order.fee_version is None) == (7, False)
    assert await worker.of(merchant) == (93, 0, 0)


async def test_a_top_up_of_a_frozen_merchant_is_parked_and_released(worker: FundWorker) -> None:
    merchant = await owing(worker, 100)
    available = f"merchant:{merchant}:available"
    await worker.accounts.freeze(available, "tests", "all")
    assert outcome(await top_up(worker, merchant, "t", 250)) is State.PARKED
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 100
    await worker.accounts.unfreeze(available)
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE state = 'parked' AND merchant = $1", merchant)
    assert (await Releaser(worker.posting, 0.0).release_some())[0] == 1
    assert await worker.of(merchant) == (150, 0, 0)


async def test_a_top_up_needs_the_reference_that_a_payment_needs(worker: FundWorker) -> None:
    class Unique(EveryChannel):
        def known(self, name: str, currency: str) -> Channel:
            channel = super().known(name, currency)
            return Channel(
                *(name, currency, channel.bank_account, "http", True, None, "open", "tests", channel.created_at)
            )

    merchant = await worker.merchant()
    worker.batcher._check._channels = Unique()
    assert refused(await top_up(worker, merchant, "t", 5), Code.CHANNEL_REF_MISSING, "channel_ref")
    assert outcome(await top_up(worker, merchant, "t", 5, channel_ref="R")) is State.POSTED


async def test_one_receipt_is_topped_up_once_by_many_callers(worker: FundWorker, service: RunningService) -> None:
    one, two = await worker.merchant("one"), await worker.merchant("two")
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        asked = [top_up((worker, other)[n % 2], (one, two)[n % 3 == 0], str(n), 5, channel_ref="R") for n in range(24)]
        answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Taken) for answer in answers) == 1
    assert sum([(await worker.of(name))[0] for name in (one, two)]) == 5


# --- Transfers ------------------------------------------------------------------------------------------------------


async def transfer(worker: FundWorker, a: str, b: str, amount: int, number: str = "t") -> Any:
    return await worker.ask("transfer", merchant=a, to_merchant=b, order_no=number, amount=amount)


async def test_a_transfer_repays_the_debts_of_both_merchants(worker: FundWorker) -> None:
    a, b = await owing(worker, 100, has=250, name="a"), await owing(worker, 60, name="b")
    for amount in (151, 250):
        assert outcome(await transfer(worker, a, b, amount, str(amount))) is State.REFUSED
    assert (await worker.of(a), await worker.of(b)) == ((250, 0, 100), (0, 0, 60))
    owed = "SELECT owed FROM fund.debts WHERE merchant = $1"
    assert [await worker.value(owed, name) for name in (a, b)] == [100, 60]
    answer = await transfer(worker, a, b, 150)
    assert (answer.order.state, answer.order.set_off, answer.order.counter_set_off) == (State.POSTED, 100, 60)
    assert (await worker.of(a), await worker.of(b)) == ((0, 0, 0), (90, 0, 0))
    assert [await worker.value(owed, name) for name in (a, b)] == [0, 0]


async def test_a_transfer_that_is_too_small_repays_a_part(worker: FundWorker) -> None:
    a, b = await worker.merchant("a"), await owing(worker, 60, name="b")
    await worker.pay(a, "p", 100)
    assert outcome(await transfer(worker, a, b, 40)) is State.POSTED
    assert (await worker.of(a), await worker.of(b)) == ((60, 0, 0), (0, 0, 20))


async def test_a_transfer_waits_for_orders_that_may_change_the_debt(worker: FundWorker) -> None:
    a, b = await owing(worker, 100, has=250, name="a"), await owing(worker, 60, name="b")
    await worker.done("recovery", merchant=a, order_no="rec", amount=5)
    async with undecided(worker, "rec", "posting"):
        assert refused(await transfer(worker, a, b, 5), Code.DEBT_IN_PROGRESS, None)
    # The receiving merchant may withdraw only when the transfer is decided.
    assert outcome(await transfer(worker, a, b, 100, "second")) is State.POSTED
    async with undecided(worker, "second", "posting"):
        for name in (a, b):
            assert refused(await withdraw(worker, name, "w", 1), Code.DEBT_IN_PROGRESS, None)
    assert outcome(await withdraw(worker, b, "w", 40)) is State.POSTED


@pytest.mark.parametrize(
    ("which", "scope", "is_posted"), [("a", "debits", False), ("b", "debits", True), ("b", "all", False)]
)
async def test_a_transfer_of_a_frozen_merchant(worker: FundWorker, which: str, scope: str, *, is_posted: bool) -> None:
    a, b = await worker.merchant("a"), await owing(worker, 60, name="b")
    await worker.pay(a, "p", 100)
    frozen = f"merchant:{a if which == 'a' else b}:available"
    await worker.accounts.freeze(frozen, "tests", scope)
    assert outcome(await transfer(worker, a, b, 80)) is (State.POSTED if is_posted else State.REFUSED)
    assert (await worker.of(a), await worker.of(b)) == (
        ((20, 0, 0), (20, 0, 0)) if is_posted else ((100, 0, 0), (0, 0, 60))
    )
    await worker.accounts.unfreeze(frozen)
    assert outcome(await transfer(worker, a, b, 20, "again")) is State.POSTED


async def test_a_transfer_needs_two_merchants_of_one_currency(worker: FundWorker) -> None:
    a, usd = await worker.merchant("a"), await worker.merchant("usd", "USD")
    for other, code in ((usd, Code.CURRENCY_MISMATCH), ("nobody", Code.MERCHANT_NOT_FOUND)):
        assert refused(await transfer(worker, a, other, 5), code, "to_merchant")
    assert refused(await transfer(worker, a, "platform", 5), Code.MERCHANT_NOT_FOUND, "to_merchant")
    with pytest.raises(ValueError, match="must differ"):
        Transfer(merchant="a", to_merchant="a", order_no="1", amount=1)


async def test_amount_and_debt_of_a_transfer_are_bounded(worker: FundWorker) -> None:
    a, b = await owing(worker, 100, has=250, name="a"), await worker.merchant("b")
    assert refused(await transfer(worker, a, b, AMOUNT_MAX - 99), Code.DEBT_EXCEEDED)
    assert outcome(await transfer(worker, a, b, AMOUNT_MAX - 100, "2")) is State.REFUSED


async def test_a_transfer_stops_at_a_debt_that_was_edited(fund_database: str, service: RunningService) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        a, b = await owing(worker, 100, has=250, name="a"), await owing(worker, 60, name="b")
        await worker.value("UPDATE fund.debts SET owed = 1 WHERE merchant = $1", a)
        fault = await transfer(worker, a, b, 5)
        assert isinstance(fault, OrderFault)
        assert fault.tampered
        # A credit is not refused because of a debt, so the debt of the receiving merchant stays as it is.
        c = await worker.merchant("c")
        await worker.pay(c, "p", 100)
        await worker.value("UPDATE fund.debts SET owed = 1 WHERE merchant = $1", b)
        answer = await transfer(worker, c, b, 30)
        assert (answer.order.state, answer.order.counter_set_off) == (State.POSTED, 0)


async def test_a_debt_is_computed_from_the_transfers_that_repaid_it(worker: FundWorker) -> None:
    a, b = await owing(worker, 50, has=250, name="a"), await owing(worker, 60, name="b")
    assert outcome(await transfer(worker, a, b, 40)) is State.POSTED
    for name, available in ((a, 160), (b, 0)):
        await worker.value("UPDATE fund.debts SET mac_key = 0, mac = '', owed = 5 WHERE merchant = $1", name)
        await worker.pay(name, "next", 30)
        assert (await worker.of(name))[0] == available + (30 if name == a else 10)
    assert (await worker.of(b))[2] == 0


async def test_concurrent_transfers_in_a_circle_lose_nothing(worker: FundWorker, service: RunningService) -> None:
    names = [await worker.merchant(f"m{n}") for n in range(4)]
    for name in names:
        await worker.pay(name, "p", 100)
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        asked = [
            transfer((worker, other)[n % 2], names[n % 4], names[(n + 1 + n // 4) % 4], 30, str(n))
            for n in range(48)
            if (1 + n // 4) % 4
        ]
        answers = await asyncio.gather(*asked)
    assert not [answer for answer in answers if isinstance(answer, OrderFault)]
    assert sum([(await worker.of(name))[0] for name in names]) == 400


async def test_a_transfer_whose_answer_is_lost_is_completed_once(worker: FundWorker) -> None:
    a, b = await worker.merchant("a"), await owing(worker, 60, name="b")
    await worker.pay(a, "p", 100)
    post = worker.accounts.post_vouchers

    async def lost(*arguments: Any) -> Any:
        await post(*arguments)
        raise Unavailable("the answer was lost")

    worker.batcher._wait_s = 0.05
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(worker.accounts, "post_vouchers", lost)
        assert outcome(await transfer(worker, a, b, 80)) is State.POSTING
    await worker.recoverer.recover_some()
    assert (await worker.of(a), await worker.of(b)) == ((20, 0, 0), (20, 0, 0))
    worker.batcher._wait_s = 5.0
    replay = await transfer(worker, a, b, 80)
    assert isinstance(replay, Taken)
    assert (replay.replay, replay.order.state) == (True, State.POSTED)


# --- Reserves -------------------------------------------------------------------------------------------------------


async def reserve(worker: FundWorker, kind: str, merchant: str, amount: int, number: str) -> Order:
    return await worker.done(f"reserve_{kind}", merchant=merchant, order_no=number, amount=amount, reason="5 %")


async def test_money_in_reserve_cannot_be_withdrawn(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    account = f"merchant:{merchant}:reserve"
    await worker.pay(merchant, "p", 100)
    assert (await reserve(worker, "hold", merchant, 101, "0")).state is State.REFUSED
    assert (await reserve(worker, "hold", merchant, 30, "1")).state is State.POSTED
    assert (await worker.of(merchant), await worker.balance(account)) == ((70, 0, 0), 30)
    assert outcome(await withdraw(worker, merchant, "w", 71)) is State.REFUSED
    more = await worker.ask("reserve_release", merchant=merchant, order_no="2", amount=31)
    assert refused(more, Code.RESERVE_EXCEEDED)
    assert (await reserve(worker, "release", merchant, 20, "3")).state is State.POSTED
    assert (await worker.of(merchant), await worker.balance(account)) == ((90, 0, 0), 10)


async def test_a_release_of_a_reserve_repays_the_debt(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    await reserve(worker, "hold", merchant, 100, "h")
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=100)
    assert await worker.of(merchant) == (0, 0, 100)
    await worker.accounts.freeze(f"merchant:{merchant}:receivable", "tests", "all")
    refused_ = await reserve(worker, "release", merchant, 100, "r0")
    assert (refused_.state, refused_.set_off) == (State.REFUSED, 100)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 100
    await worker.accounts.unfreeze(f"merchant:{merchant}:receivable")
    released = await reserve(worker, "release", merchant, 100, "r")
    assert released.set_off == 100
    assert await worker.of(merchant) == (0, 0, 0)


async def test_concurrent_releases_never_overdraw_a_reserve(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    await reserve(worker, "hold", merchant, 100, "h")
    members = {"merchant": merchant, "amount": 30}
    answers = await asyncio.gather(*(worker.ask("reserve_release", order_no=str(n), **members) for n in range(12)))
    assert sum(isinstance(answer, Taken) and answer.order.state is State.POSTED for answer in answers) == 3
    assert (await worker.of(merchant), await worker.balance(f"merchant:{merchant}:reserve")) == ((90, 0, 0), 10)


@pytest.mark.parametrize("kind", ["top_up", "transfer", "reserve_hold", "dispute", "dispute_fee"])
@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MAX + 1])
def test_amounts_are_bounded(kind: str, amount: int) -> None:
    import msgspec

    from fundledger.fund.model.order import Kind
    from fundledger.fund.model.request_types import REQUESTS

    members = {
        "top_up": {"currency": "CNY", "channel": "c"},
        "transfer": {"to_merchant": "n"},
        "dispute": {"payment_order_no": "p"},
        "dispute_fee": {"channel": "c"},
    }.get(kind, {})
    body = msgspec.json.encode({"merchant": "m", "order_no": "1", "amount": amount, **members})
    with pytest.raises(msgspec.ValidationError, match="amount"):
        msgspec.json.decode(body, type=REQUESTS[Kind(kind)])
    assert request_of(kind, merchant="m", order_no="1", amount=AMOUNT_MAX, **members)
