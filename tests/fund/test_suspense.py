"""Suspense that is explained: cleared overages and shortages, adjustments that close an item, and parked orders that
cannot be released.

Each test has a currency of its own, because all tests share the accounts of the platform.
"""

import asyncio
from typing import Any, get_args

import pytest

from fundledger.client.fund_money import Parked
from fundledger.fund.jobs.release import Releaser
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import FACTS, Order, State
from fundledger.fund.model.own_requests import ParkedClearing, SuspenseClearing
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store.events import event_of
from fundledger.fund.store.queries import SQL
from tests.support.currencies import unused_currency
from tests.support.fund_worker import CHECKER, MODULE, FundWorker, request_of


class Slips:
    """Slips about the suspense of one currency."""

    def __init__(self, worker: FundWorker) -> None:
        self.worker, self.currency, self.numbers = worker, unused_currency(), 0
        self.channel = f"c-{worker.salt}"

    @property
    def number(self) -> str:
        self.numbers += 1
        return f"{self.numbers}-{self.worker.salt}"

    async def differ(self, amount: int, direction: str) -> Order:
        """Post a bank overage (`more`) or shortage (`less`)."""
        members = {"amount": amount, "currency": self.currency, "direction": direction, "channel": self.channel}
        return await self.worker.done("bank_difference", order_no=self.number, reason="r", **members)

    def clearing(self, amount: int, direction: str, against: str, **more: Any) -> dict[str, Any]:
        members = {"amount": amount, "currency": self.currency, "direction": direction, "against": against}
        return {"kind": "suspense_clearing", "order_no": self.number, "reason": "r", **members, **more}

    async def owing(self, owed: int, name: str = "m") -> str:
        merchant = await self.worker.merchant(name, self.currency)
        await self.worker.pay(merchant, "p", owed, currency=self.currency, channel=self.channel)
        members = {"merchant": merchant, "amount": owed}
        await self.worker.done("withdrawal", order_no="w", channel=self.channel, **members)
        await self.worker.done("chargeback", order_no="c", payment_order_no="p", **members)
        assert await self.worker.of(merchant) == (0, 0, owed)
        return merchant

    async def hold(self, *names: str) -> list[int]:
        return [await self.worker.balance(f"{name}:{self.currency}") for name in names]


def refused(answer: Any, code: Code, field: str | None = "amount") -> bool:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field), answer
    return True


# --- Overages and shortages -----------------------------------------------------------------------------------------


async def test_an_overage_goes_where_the_slip_says(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await slips.owing(30)
    await slips.differ(100, "more")
    bank = await slips.hold(f"bank:{slips.channel}")
    order = await worker.done(**slips.clearing(40, "more", "merchant", merchant=merchant))
    assert order.set_off == 30
    assert await worker.of(merchant) == (10, 0, 0)
    await worker.done(**slips.clearing(20, "more", "income"))
    await worker.done(**slips.clearing(25, "more", "bank", channel=slips.channel))
    await slips.differ(15, "less")
    await worker.done(**slips.clearing(15, "more", "short"))
    assert await slips.hold("suspense:over", "suspense:short", "income:other") == [0, 0, 20]
    assert await slips.hold(f"bank:{slips.channel}") == [bank[0] - 25 - 15]


async def test_a_shortage_is_borne_by_the_account_that_the_slip_names(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await worker.merchant(currency=slips.currency)
    await worker.pay(merchant, "p", 50, currency=slips.currency, channel=slips.channel)
    await slips.differ(100, "less")
    await worker.done(**slips.clearing(40, "less", "merchant", merchant=merchant))
    assert await worker.of(merchant) == (10, 0, 0)
    short = await worker.ask(**slips.clearing(11, "less", "merchant", merchant=merchant))
    assert isinstance(short, Taken)
    assert short.order.state is State.REFUSED
    await worker.done(**slips.clearing(20, "less", "loss"))
    await worker.done(**slips.clearing(40, "less", "channel"))
    assert await slips.hold("suspense:short", "expense:loss", "expense:channel") == [0, 20, 40]


async def test_no_more_is_cleared_than_the_suspense_account_has(worker: FundWorker) -> None:
    slips = Slips(worker)
    assert refused(await worker.ask(**slips.clearing(1, "more", "income")), Code.SUSPENSE_EXCEEDED)
    assert refused(await worker.ask(**slips.clearing(1, "less", "loss")), Code.SUSPENSE_EXCEEDED)
    await slips.differ(100, "more")
    await slips.differ(60, "less")
    assert refused(await worker.ask(**slips.clearing(101, "more", "income")), Code.SUSPENSE_EXCEEDED)
    assert refused(await worker.ask(**slips.clearing(61, "less", "loss")), Code.SUSPENSE_EXCEEDED)
    assert refused(await worker.ask(**slips.clearing(61, "more", "short")), Code.SUSPENSE_EXCEEDED)
    waiting = [await worker.requested(**slips.clearing(60, "more", "income")) for _ in range(4)]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    assert sorted(type(answer).__name__ for answer in answers) == ["Refusal"] * 3 + ["Taken"]
    assert await slips.hold("suspense:over", "income:other") == [40, 60]
    await worker.done(**slips.clearing(40, "more", "short"))
    assert await slips.hold("suspense:over", "suspense:short") == [0, -20]


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "more", "against": "loss"},
        {"direction": "less", "against": "bank", "channel": "c"},
        {"direction": "more", "against": "merchant"},
        {"direction": "more", "against": "income", "merchant": "m"},
        {"direction": "more", "against": "bank"},
        {"direction": "more", "against": "income", "channel": "c"},
    ],
)
def test_a_slip_that_contradicts_itself_is_malformed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"against is|direction is"):
        SuspenseClearing(order_no="1", amount=1, currency="CNY", reason="r", **wrong)


async def test_an_overage_of_another_currency_is_not_the_merchants(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await worker.merchant(currency="CNY")
    await slips.differ(10, "more")
    assert refused(
        await worker.ask(**slips.clearing(5, "more", "merchant", merchant=merchant)), Code.CURRENCY_MISMATCH, "currency"
    )


# --- Adjustments ----------------------------------------------------------------------------------------------------


async def test_an_adjustment_can_close_the_item_that_another_one_opened(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await worker.merchant(currency=slips.currency)
    await worker.pay(merchant, "p", 500, currency=slips.currency, channel=slips.channel)
    adjust = {"kind": "adjustment", "merchant": merchant, "amount": 400, "reason": "r"}
    await worker.done(order_no="1", direction="debit", **adjust)
    assert await slips.hold("suspense:over", "suspense:short") == [400, 0]
    over = {"direction": "credit", "against": "over"}
    assert refused(await worker.ask(order_no="2", **{**adjust, **over, "amount": 401}), Code.SUSPENSE_EXCEEDED)
    await worker.done(order_no="2", **adjust, **over)
    assert await slips.hold("suspense:over", "suspense:short") == [0, 0]
    assert await worker.of(merchant) == (500, 0, 0)
    await worker.done(order_no="3", direction="credit", **adjust)
    assert await slips.hold("suspense:over", "suspense:short") == [0, -400]
    short = {"direction": "debit", "against": "short"}
    waiting = [await worker.requested(order_no=n, **adjust, **short) for n in "45"]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    assert sorted(type(answer).__name__ for answer in answers) == ["Refusal", "Taken"]
    assert await slips.hold("suspense:over", "suspense:short") == [0, 0]
    assert await worker.of(merchant) == (500, 0, 0)


async def test_an_adjustment_that_names_no_suspense_account_opens_an_item(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await worker.merchant(currency=slips.currency)
    for n, against in enumerate((None, "short")):
        more = {} if against is None else {"against": against}
        members = {"amount": 5, "direction": "credit", "reason": "r", **more}
        order = await worker.done("adjustment", merchant=merchant, order_no=str(n), **members)
        assert order.against == against
    assert await slips.hold("suspense:short") == [-10]


# --- Parked orders --------------------------------------------------------------------------------------------------


async def closed(worker: FundWorker, slips: Slips, name: str = "gone", **more: Any) -> str:
    """Return a merchant whose available balance is closed."""
    merchant = await worker.merchant(name, slips.currency, **more)
    await worker.accounts.close_account(f"merchant:{merchant}:available")
    return merchant


def clear(slips: Slips, gone: str, of_order_no: str, against: str, **more: Any) -> dict[str, Any]:
    named = {"order_no": slips.number, "of_kind": "payment", "of_merchant": gone, "of_order_no": of_order_no}
    return {"kind": "parked_clearing", "against": against, "reason": "closed", **named, **more}


async def state_of(worker: FundWorker, order: Order) -> tuple[str, Any]:
    row = await worker.pool.fetchrow("SELECT state, reversed_by FROM fund.orders WHERE id = $1", order.id)
    return tuple(row)


@pytest.mark.parametrize("against", ["merchant", "income", "bank"])
async def test_parked_money_goes_where_two_people_decide(worker: FundWorker, against: str) -> None:
    slips = Slips(worker)
    merchant = await closed(worker, slips, fee=Fee(basis_points=100))
    other = await slips.owing(30, "other")
    pay = {"currency": slips.currency, "channel": slips.channel}
    parked = await worker.pay(merchant, "p", 1_000, channel_ref="R", **pay)
    assert parked.state is State.PARKED
    bank = (await slips.hold(f"bank:{slips.channel}"))[0]
    named = {"merchant": other} if against == "merchant" else {}
    order = await worker.requested(**clear(slips, merchant, "p", against, **named))
    assert (order.amount, order.currency, order.channel) == (1_000, slips.currency, slips.channel)
    assert await state_of(worker, parked) == ("parked", None)
    answer = await worker.batcher.approve(order.id, CHECKER)
    assert isinstance(answer, Taken)
    assert answer.order.state is State.POSTED
    assert await state_of(worker, parked) == ("cleared", order.id)
    assert await slips.hold("suspense:parked", "income:fee") == [0, 0]
    expected = {
        "merchant": ((970, 0, 0), 0, bank),
        "income": ((0, 0, 30), 1_000, bank),
        "bank": ((0, 0, 30), 0, bank - 1_000),
    }
    found = await worker.of(other), *(await slips.hold("income:other", f"bank:{slips.channel}"))
    assert found == expected[against]
    # The receipt counts, and the cleared order is neither released nor cleared again.
    no = await worker.ask("payment", merchant=other, order_no="q", amount=1, channel_ref="R", **pay)
    assert refused(no, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    assert refused(await worker.ask(**clear(slips, merchant, "p", "income")), Code.ORDER_NOT_PARKED, "of_order_no")
    retried = await worker.batcher.retry(parked.id, "tester")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.CLEARED
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE id = $1", parked.id)
    assert (await Releaser(worker.posting, 0.0).release_some())[0] == 0


@pytest.mark.parametrize("against", ["merchant", "loss"])
async def test_a_parked_chargeback_is_charged_to_another_merchant_or_is_a_loss(
    worker: FundWorker, against: str
) -> None:
    slips = Slips(worker)
    merchant, other = await worker.merchant("m", slips.currency), await worker.merchant("other", slips.currency)
    for name in (merchant, other):
        await worker.pay(name, "p", 100, currency=slips.currency, channel=slips.channel)
    for account in ("available", "receivable"):
        await worker.accounts.freeze(f"merchant:{merchant}:{account}", "tests", "all")
    parked = await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="p", amount=60)
    assert parked.state is State.PARKED
    named = {"merchant": other} if against == "merchant" else {}
    await worker.done(**clear(slips, merchant, "cb", against, of_kind="chargeback", **named))
    assert (await state_of(worker, parked))[0] == "cleared"
    assert await worker.of(other) == ((40, 0, 0) if against == "merchant" else (100, 0, 0))
    assert await slips.hold("suspense:parked", "expense:loss") == [0, 0 if against == "merchant" else 60]
    for account in ("available", "receivable"):
        await worker.accounts.unfreeze(f"merchant:{merchant}:{account}")
    # The chargeback no longer blocks withdrawals, and still counts against its payment.
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=slips.channel)
    more = await worker.ask("chargeback", merchant=merchant, order_no="more", payment_order_no="p", amount=41)
    assert refused(more, Code.CHARGEBACK_EXCEEDS_PAYMENT)


async def test_a_won_dispute_of_a_pending_part_goes_elsewhere_if_its_merchant_is_closed(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant, other = await worker.merchant("m", slips.currency), await worker.merchant("other", slips.currency)
    await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel, settle="later")
    await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="p", amount=60)
    await worker.accounts.close_account(f"merchant:{merchant}:available")
    parked = await worker.done("dispute_won", merchant=merchant, order_no="won", chargeback_order_no="cb", amount=60)
    assert (parked.state, parked.from_pending) == (State.PARKED, 60)
    await worker.done(**clear(slips, merchant, "won", "merchant", of_kind="dispute_won", merchant=other))
    assert (await state_of(worker, parked))[0] == "cleared"
    assert await worker.of(other) == (60, 0, 0)


@pytest.mark.parametrize("why", ["pending", "won"])
async def test_a_chargeback_that_its_merchant_can_still_pay_is_not_cleared(worker: FundWorker, why: str) -> None:
    slips = Slips(worker)
    merchant = await worker.merchant("m", slips.currency)
    settle = "later" if why == "pending" else "now"
    await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel, settle=settle)
    accounts = ("pending", "receivable") if why == "pending" else ("available", "receivable")
    for account in accounts:
        await worker.accounts.freeze(f"merchant:{merchant}:{account}", "tests", "all")
    parked = await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="p", amount=60)
    assert (parked.state, parked.from_pending) == (State.PARKED, 60 if why == "pending" else 0)
    if why == "won":
        await worker.accounts.unfreeze(f"merchant:{merchant}:available")
        named = {"merchant": merchant, "chargeback_order_no": "cb"}
        await worker.done("dispute_won", order_no="won", amount=1, **named)
    no = await worker.ask(**clear(slips, merchant, "cb", "loss", of_kind="chargeback"))
    assert refused(no, Code.ORDER_NOT_PARKED, "of_order_no")
    for account in accounts:
        await worker.accounts.unfreeze(f"merchant:{merchant}:{account}")
    assert isinstance(await worker.batcher.retry(parked.id, "tester"), Taken)
    assert await worker.of(merchant) == ((0, 40, 0) if why == "pending" else (41, 0, 0))


async def test_a_parked_payout_return_is_cleared_and_still_counts_against_its_withdrawal(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant, other = (
        await worker.merchant("m", slips.currency, withdrawal_fee=Fee(fixed=7)),
        await slips.owing(30, "other"),
    )
    await worker.pay(merchant, "p", 107, currency=slips.currency, channel=slips.channel)
    payout = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=slips.channel)
    assert isinstance(await worker.batcher.end(payout.id, "paid", "out", None, "tests"), Taken)
    await worker.accounts.close_account(f"merchant:{merchant}:available")
    of = {"merchant": merchant, "withdrawal_order_no": "w", "fee": "returned"}
    parked = await worker.done("payout_return", order_no="b", amount=90, channel_ref="back", **of)
    assert (parked.state, parked.fee) == (State.PARKED, 6)
    earned = await slips.hold("income:fee")
    order = await worker.done(**clear(slips, merchant, "b", "merchant", of_kind="payout_return", merchant=other))
    assert (order.amount, order.direction, order.set_off) == (90, "in", 30)
    assert (await state_of(worker, parked))[0] == "cleared"
    assert await worker.of(other) == (60, 0, 0)
    assert await slips.hold("suspense:parked", "income:fee") == [0, *earned], "only a release returns the fee"
    more = await worker.ask("payout_return", order_no="c", amount=11, channel_ref="more", **of)
    assert refused(more, Code.RETURN_EXCEEDS_WITHDRAWAL)
    named = {"of_kind": "parked_clearing", "of_order_no": order.order_no, "merchant": other, "reason": "wrong shop"}
    await worker.done("reversal", order_no="r", **named)
    assert await state_of(worker, parked) == ("parked", None)
    assert await worker.of(other) == (0, 0, 30)
    assert await slips.hold("suspense:parked") == [90]


def test_every_fact_can_be_cleared_when_it_is_parked() -> None:
    assert set(get_args(ParkedClearing.__annotations__["of_kind"])) == FACTS == set(get_args(Parked))


async def test_a_clearing_that_is_refused_leaves_the_order_parked_and_releasable(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant, other = await worker.merchant("m", slips.currency), await closed(worker, slips, "other")
    await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "all")
    parked = await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel)
    order = await worker.done(**clear(slips, merchant, "p", "merchant", merchant=other))
    assert order.state is State.REFUSED
    assert await state_of(worker, parked) == ("parked", None)
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    answer = await worker.batcher.retry(parked.id, "tester")
    assert isinstance(answer, Taken)
    assert answer.order.state is State.POSTED
    assert await worker.of(merchant) == (100, 0, 0)


async def test_a_clearing_and_a_release_never_move_the_money_twice(worker: FundWorker) -> None:
    slips = Slips(worker)
    for turn in range(8):
        merchant = await worker.merchant(f"m{turn}", slips.currency)
        await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "all")
        parked = await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel)
        order = await worker.requested(**clear(slips, merchant, "p", "income"))
        await worker.accounts.unfreeze(f"merchant:{merchant}:available")
        before = (await slips.hold("income:other"))[0]
        await asyncio.gather(
            worker.batcher.approve(order.id, CHECKER), worker.batcher.retry(parked.id, "tester"), return_exceptions=True
        )
        earned = (await slips.hold("income:other"))[0] - before
        assert (await worker.of(merchant))[0] + earned == 100
        assert await slips.hold("suspense:parked") == [0]


async def test_two_clearings_of_one_order_move_the_money_once(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await closed(worker, slips)
    await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel)
    waiting = [await worker.requested(**clear(slips, merchant, "p", "income")) for _ in range(4)]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    taken = [answer for answer in answers if isinstance(answer, Taken)]
    assert len(taken) == 1
    assert await slips.hold("suspense:parked", "income:other") == [0, 100]


async def test_the_reversal_of_a_clearing_parks_the_order_again(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant = await closed(worker, slips)
    other = await slips.owing(30, "other")
    parked = await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel)
    order = await worker.done(**clear(slips, merchant, "p", "merchant", merchant=other))
    named = {"of_kind": "parked_clearing", "of_order_no": order.order_no, "merchant": other, "reason": "wrong shop"}
    reversal = await worker.done("reversal", order_no="r", **named)
    assert reversal.state is State.POSTED
    assert await worker.of(other) == (0, 0, 30)
    assert await state_of(worker, parked) == ("parked", None)
    assert await slips.hold("suspense:parked") == [100]
    await worker.done(**clear(slips, merchant, "p", "income"))
    assert (await state_of(worker, parked))[0] == "cleared"
    assert await slips.hold("suspense:parked", "income:other") == [0, 100]
    history = await worker.pool.fetch("SELECT state FROM fund.events WHERE order_id = $1 ORDER BY seq", parked.id)
    assert [row["state"] for row in history] == ["parked", "cleared", "parked", "cleared"]
    rows = await worker.pool.fetch(SQL["read_events"], 0, 1 << 40, 1_000)
    ids = [event_of(row, worker.macs).id for row in rows if row["id"] == parked.id]
    assert len(ids) == len(set(ids)) == 4


async def test_only_a_parked_order_of_the_same_currency_is_cleared(worker: FundWorker) -> None:
    slips = Slips(worker)
    merchant, other = await worker.merchant("m", slips.currency), await worker.merchant("cny", "CNY")
    await worker.pay(merchant, "p", 100, currency=slips.currency, channel=slips.channel)

    async def ask(of: str, against: str = "income", **more: Any) -> Any:
        return await worker.batcher.ask(request_of(**clear(slips, merchant, of, against, **more)), MODULE)

    assert refused(await ask("p"), Code.ORDER_NOT_PARKED, "of_order_no")
    assert refused(await ask("q"), Code.ORDER_NOT_FOUND, "of_order_no")
    assert refused(await ask("p", "merchant", merchant=other), Code.CURRENCY_MISMATCH, "of_merchant")
    assert refused(await ask("p", of_merchant="nobody"), Code.MERCHANT_NOT_FOUND, "of_merchant")


@pytest.mark.parametrize(
    "wrong",
    [
        {"of_kind": "payment", "against": "loss"},
        {"of_kind": "chargeback", "against": "income"},
        {"of_kind": "dispute_fee", "against": "bank"},
        {"of_kind": "payment", "against": "merchant"},
        {"of_kind": "payment", "against": "income", "merchant": "n"},
        {"of_kind": "payment", "against": "merchant", "merchant": "m"},
    ],
)
def test_a_clearing_that_contradicts_itself_is_malformed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"against is|of_kind is|must differ"):
        ParkedClearing(order_no="1", of_merchant="m", of_order_no="p", reason="r", **wrong)
