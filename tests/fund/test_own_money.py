"""Own money of the platform: transfers between its banks, own funds, fee sweeps, and payables of channels.

Each test has a currency of its own, because all tests share the accounts of the platform.
"""

import asyncio
from typing import Any

import msgspec
import pytest

from fundledger.client.faults import Unavailable
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.own_requests import OwnTransfer
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from tests.support.currencies import unused_currency
from tests.support.fund_worker import CHECKER, MODULE, EveryChannel, FundWorker, request_of
from tests.support.running import RunningService


class Bounded(EveryChannel):
    """A registry in which each channel has this overdraft."""

    def __init__(self, overdraft: int | None = 0, state: Any = "open") -> None:
        super().__init__()
        self.overdraft = overdraft
        self.state = state

    def known(self, name: str, currency: str) -> Channel:
        channel = super().known(name, currency)
        return msgspec.structs.replace(channel, overdraft=self.overdraft, state=self.state)


def limit(worker: FundWorker, overdraft: int | None = 0, state: str = "open") -> None:
    """Let the banks of all channels have an overdraft, in this worker."""
    registry = Bounded(overdraft, state)
    worker.batcher._check._channels = worker.batcher._platform._channels = registry


class Banks:
    """Two banks of the platform, with accounts in one currency."""

    def __init__(self, worker: FundWorker) -> None:
        self.worker, self.currency = worker, unused_currency()
        self.a, self.b = f"a-{worker.salt}", f"b-{worker.salt}"

    async def fill(self, amount: int, **more: Any) -> str:
        """Let a merchant be paid through bank A. Return the merchant."""
        merchant = await self.worker.merchant("m", self.currency, **more)
        await self.worker.pay(merchant, "fill", amount, currency=self.currency, channel=self.a, channel_ref="fill")
        return merchant

    def transfer(self, amount: int, number: str = "t", **more: Any) -> dict[str, Any]:
        named = {"order_no": f"{number}-{self.worker.salt}", "from_channel": self.a, "channel": self.b}
        return {"kind": "own_transfer", **named, "amount": amount, "currency": self.currency, **more}

    def own(self, kind: str, amount: int, number: str = "o", **more: Any) -> dict[str, Any]:
        reason = {} if kind == "payable_payment" else {"reason": "r"}
        named = {"order_no": f"{number}-{self.worker.salt}", "channel": self.a, "currency": self.currency}
        return {"kind": kind, **named, "amount": amount, **reason, **more}

    async def hold(self, *names: str) -> list[int]:
        """Return the balances of bank A, bank B, and of these accounts of the platform."""
        names = (f"bank:{self.a}", f"bank:{self.b}", *names)
        return [await self.worker.balance(f"{name}:{self.currency}") for name in names]


def refused(answer: Any, code: Code, field: str | None = "amount") -> bool:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field), answer
    return True


async def taken(answer: Any, state: State = State.POSTED) -> Order:
    assert isinstance(answer, Taken), answer
    assert answer.order.state is state, answer
    return answer.order


# --- Own transfers --------------------------------------------------------------------------------------------------


async def test_an_own_transfer_leaves_one_bank_and_arrives_at_another(worker: FundWorker) -> None:
    banks = Banks(worker)
    await banks.fill(1_000)
    order = await worker.requested(**banks.transfer(600, from_ref="OUT"))
    assert await banks.hold("transit:bank") == [1_000, 0, 0]
    order = await taken(await worker.batcher.approve(order.id, CHECKER))
    assert (order.counterparty, order.channel, order.counter_ref) == (banks.a, banks.b, "OUT")
    assert await banks.hold("transit:bank") == [400, 0, 600]
    arrived = await taken(await worker.batcher.end(order.id, "paid", "IN", None, "bank"), State.PAID)
    assert arrived.channel_ref == "IN"
    assert await banks.hold("transit:bank") == [400, 600, 0]
    again = await worker.batcher.end(order.id, "paid", "IN", None, "bank")
    assert isinstance(again, Taken)
    assert again.replay
    for ending, ref in (("bounced", None), ("paid", "OTHER")):
        no = await worker.batcher.end(order.id, ending, ref, "r", "bank")  # type: ignore[arg-type]
        assert refused(no, Code.ORDER_ENDED, None if ref is None else "channel_ref")


async def test_an_own_transfer_that_comes_back_is_at_its_bank_again(worker: FundWorker) -> None:
    banks = Banks(worker)
    await banks.fill(1_000)
    order = await taken(await worker.ask(**banks.transfer(600)))
    bounced = await taken(await worker.batcher.end(order.id, "bounced", None, "closed", "bank"), State.BOUNCED)
    assert bounced.reason == "closed"
    assert await banks.hold("transit:bank") == [1_000, 0, 0]


@pytest.mark.parametrize("ending", ["won", "lost"])
async def test_an_own_transfer_has_no_other_end(worker: FundWorker, ending: Any) -> None:
    banks = Banks(worker)
    order = await taken(await worker.ask(**banks.transfer(600)))
    assert refused(await worker.batcher.end(order.id, ending, None, None, "bank"), Code.ORDER_NOT_FOUND, None)
    waits = await worker.requested(**banks.transfer(600, "u"))
    assert refused(await worker.batcher.end(waits.id, "paid", "R", None, "bank"), Code.ORDER_NOT_POSTED, None)
    assert await banks.hold("transit:bank") == [-600, 0, 600]
    await worker.batcher.end(order.id, "bounced", None, "r", "bank")


async def test_an_own_transfer_needs_two_banks() -> None:
    with pytest.raises(ValueError, match="must differ"):
        OwnTransfer(order_no="1", from_channel="c", channel="c", amount=1, currency="CNY")


async def test_a_receipt_of_own_money_counts_once_over_all_kinds(worker: FundWorker) -> None:
    banks = Banks(worker)
    merchant = await banks.fill(1_000, fee=Fee(fixed=10))
    payment = {"merchant": merchant, "amount": 5, "currency": banks.currency, "channel": banks.b}
    await worker.done("payment", order_no="p", channel_ref="R1", **payment)
    first = await taken(await worker.ask(**banks.transfer(10, "1", from_ref="R")))
    for channel_ref, code in (("R1", Code.RECEIPT_ALREADY_BOOKED), ("R2", None)):
        answer = await worker.batcher.end(first.id, "paid", channel_ref, None, "bank")
        assert isinstance(answer, Taken) if code is None else refused(answer, code, "channel_ref")
    # The money that arrived is no payment, and is not credited to a merchant.
    no = await worker.ask("payment", order_no="q", channel_ref="R2", **payment)
    assert refused(no, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    assert "own_transfer" in no.detail  # type: ignore[union-attr]
    # The reference at the bank that the money left counts once among all movements out.
    await worker.done(**banks.own("own_funds", 100, "in", direction="in"))
    await worker.done("dispute_fee", merchant=merchant, order_no="f", amount=5, channel=banks.a, against="payable")
    for asked in (
        banks.transfer(10, "2", from_ref="R"),
        banks.own("own_funds", 10, direction="out", channel_ref="R"),
        banks.own("fee_sweep", 1, channel_ref="R"),
        banks.own("payable_payment", 1, channel_ref="R"),
        {
            "kind": "dispute_fee",
            "merchant": merchant,
            "order_no": "g",
            "amount": 5,
            "channel": banks.a,
            "channel_ref": "R",
        },
    ):
        no = await worker.batcher.ask(request_of(**asked), MODULE)
        assert refused(no, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    withdrawal = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=1, channel=banks.a)
    no = await worker.batcher.end(withdrawal.id, "paid", "R", None, "bank")
    assert refused(no, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    assert isinstance(await worker.batcher.end(withdrawal.id, "paid", "R3", None, "bank"), Taken)
    assert refused(
        await worker.ask(**banks.transfer(10, "3", from_ref="R3")), Code.RECEIPT_ALREADY_BOOKED, "channel_ref"
    )


async def test_a_rejected_own_transfer_frees_its_reference(worker: FundWorker) -> None:
    banks = Banks(worker)
    order = await worker.requested(**banks.transfer(10, "1", from_ref="R"))
    assert refused(
        await worker.ask(**banks.transfer(10, "2", from_ref="R")), Code.RECEIPT_ALREADY_BOOKED, "channel_ref"
    )
    await worker.batcher.reject(order.id, "no", CHECKER)
    second = await taken(await worker.ask(**banks.transfer(10, "3", from_ref="R")))
    await worker.batcher.end(second.id, "bounced", None, "r", "bank")


async def test_of_two_concurrent_own_transfers_with_one_reference_one_is_taken(worker: FundWorker) -> None:
    banks = Banks(worker)
    asked = [worker.batcher.ask(request_of(**banks.transfer(10, str(n), from_ref="R")), MODULE) for n in range(6)]
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Taken) for answer in answers) == 1
    assert all(
        refused(answer, Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
        for answer in answers
        if not isinstance(answer, Taken)
    )


# --- The bank account that the money leaves -------------------------------------------------------------------------


async def test_own_money_leaves_a_bank_only_down_to_its_floor(worker: FundWorker) -> None:
    banks = Banks(worker)
    merchant = await banks.fill(1_000)
    limit(worker)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=300, channel=banks.a)
    assert refused(await worker.batcher.ask(request_of(**banks.transfer(701)), MODULE), Code.CHANNEL_UNDERFUNDED)
    first = await worker.requested(**banks.transfer(500, "1"))
    second = await worker.requested(**banks.transfer(201, "2"))
    await taken(await worker.batcher.approve(first.id, CHECKER))
    # The money has left since the second one was requested. It still waits, and can be approved later.
    assert refused(await worker.batcher.approve(second.id, CHECKER), Code.CHANNEL_UNDERFUNDED)
    limit(worker, overdraft=1)
    await taken(await worker.batcher.approve(second.id, CHECKER))
    assert await banks.hold("transit:bank") == [299, 0, 701]
    for order in (first, second):
        await worker.batcher.end(order.id, "bounced", None, "r", "bank")


async def test_a_bank_without_a_bound_may_be_overdrawn(worker: FundWorker) -> None:
    banks = Banks(worker)
    limit(worker, overdraft=None)
    order = await taken(await worker.ask(**banks.transfer(5)))
    assert await banks.hold() == [-5, 0]
    await worker.batcher.end(order.id, "bounced", None, "r", "bank")


async def test_of_many_concurrent_approvals_no_more_are_posted_than_the_bank_holds(
    worker: FundWorker, service: RunningService
) -> None:
    banks = Banks(worker)
    await banks.fill(1_000)
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        limit(worker)
        limit(other)
        waiting = [await worker.requested(**banks.transfer(150, str(n))) for n in range(12)]
        answers = await asyncio.gather(
            *((worker, other)[n % 2].batcher.approve(order.id, CHECKER) for n, order in enumerate(waiting))
        )
    posted = [answer.order for answer in answers if isinstance(answer, Taken)]
    assert len(posted) == 6
    assert all(refused(answer, Code.CHANNEL_UNDERFUNDED) for answer in answers if not isinstance(answer, Taken))
    assert await banks.hold("transit:bank") == [100, 0, 900]
    for order in posted:
        await worker.batcher.end(order.id, "paid", f"in-{order.order_no}", None, "bank")


async def test_an_order_whose_outcome_is_not_known_counts_as_posted(worker: FundWorker) -> None:
    banks = Banks(worker)
    await banks.fill(1_000)
    limit(worker)
    first, second = [await worker.requested(**banks.transfer(600, n)) for n in "12"]

    async def away(*_: Any) -> Any:
        raise Unavailable("the answer was lost")

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(worker.accounts, "post_vouchers", away)
        worker.batcher._wait_s = 0.05
        answer = await worker.batcher.approve(first.id, CHECKER)
    assert isinstance(answer, Taken)
    assert answer.order.state is State.POSTING
    assert refused(await worker.batcher.approve(second.id, CHECKER), Code.CHANNEL_UNDERFUNDED)
    worker.batcher._wait_s = 5.0
    await worker.recoverer.recover_some()
    assert await banks.hold("transit:bank") == [400, 0, 600]
    assert refused(await worker.batcher.approve(second.id, CHECKER), Code.CHANNEL_UNDERFUNDED)
    await worker.batcher.end(first.id, "bounced", None, "r", "bank")
    await taken(await worker.batcher.approve(second.id, CHECKER))
    await worker.batcher.end(second.id, "bounced", None, "r", "bank")


async def test_an_approval_waits_for_an_account_service_that_does_not_answer(worker: FundWorker) -> None:
    banks = Banks(worker)
    await banks.fill(1_000)
    limit(worker)
    order = await worker.requested(**banks.transfer(600))

    async def away(*_: Any) -> Any:
        raise Unavailable("no answer")

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(worker.accounts, "account", away)
        fault = await worker.batcher.approve(order.id, CHECKER)
    assert isinstance(fault, OrderFault)
    assert fault.undone
    order = await taken(await worker.batcher.approve(order.id, CHECKER))
    await worker.batcher.end(order.id, "bounced", None, "r", "bank")


async def test_own_money_is_transferred_from_a_closed_channel_and_not_to_it(worker: FundWorker) -> None:
    banks = Banks(worker)

    class HalfClosed(EveryChannel):
        def known(self, name: str, currency: str) -> Channel:
            state: Any = "closed" if name == banks.a else "open"
            return msgspec.structs.replace(super().known(name, currency), state=state)

    worker.batcher._check._channels = HalfClosed()
    order = await taken(await worker.ask(**banks.transfer(5)))
    back = banks.transfer(5, "back", from_channel=banks.b, channel=banks.a)
    assert refused(await worker.ask(**back), Code.CHANNEL_CLOSED, "channel")
    await worker.batcher.end(order.id, "bounced", None, "r", "bank")


async def test_own_money_leaves_what_a_lost_dispute_has_taken(worker: FundWorker) -> None:
    """The bank has taken the money of a lost dispute, also while the end of the dispute is refused."""
    banks = Banks(worker)
    limit(worker)
    merchant = await banks.fill(1_000)
    dispute = {"merchant": merchant, "payment_order_no": "fill", "amount": 600}
    order = await worker.done("dispute", order_no="d", **dispute)
    await worker.accounts.freeze(f"merchant:{merchant}:disputed", "tests", "all")
    answer = await worker.batcher.end(order.id, "lost", None, None, "bank")
    assert isinstance(answer, Taken)
    assert (answer.order.state, answer.order.ending) == (State.POSTED, "lost")
    assert await banks.hold() == [1_000, 0]
    assert refused(await worker.ask(**banks.transfer(401)), Code.CHANNEL_UNDERFUNDED)
    funds = PayoutFunds(worker.pool, worker.gateway, worker.batcher._platform._channels)  # type: ignore[arg-type]
    assert await funds._left(banks.a, banks.currency, Kind.WITHDRAWAL) == 400
    await worker.accounts.unfreeze(f"merchant:{merchant}:disputed")
    assert isinstance(await worker.batcher.retry(order.id, "tester"), Taken)
    assert await banks.hold() == [400, 0]
    assert refused(await worker.ask(**banks.transfer(401, "t2")), Code.CHANNEL_UNDERFUNDED)


# --- Own funds, fee sweeps, payables --------------------------------------------------------------------------------


async def test_own_funds_leave_only_as_far_as_they_came_in(worker: FundWorker) -> None:
    banks = Banks(worker)
    limit(worker)
    assert refused(await worker.ask(**banks.own("own_funds", 1, direction="out")), Code.OWN_FUNDS_EXCEEDED)
    order = await taken(await worker.ask(**banks.own("own_funds", 500, "in", direction="in", channel_ref="R")))
    assert order.channel_ref == "R"
    assert await banks.hold("equity:own") == [500, 0, 500]
    assert refused(await worker.ask(**banks.own("own_funds", 501, "1", direction="out")), Code.OWN_FUNDS_EXCEEDED)
    out = await taken(await worker.ask(**banks.own("own_funds", 300, "2", direction="out", channel_ref="R")))
    assert (out.counterparty, out.counter_ref, out.channel_ref) == (banks.a, "R", None)
    waiting = [await worker.requested(**banks.own("own_funds", 150, n, direction="out")) for n in "34"]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    assert sorted(type(answer).__name__ for answer in answers) == ["Refusal", "Taken"]
    assert await banks.hold("equity:own") == [50, 0, 50]


async def test_an_edited_order_of_own_money_raises_no_bound(worker: FundWorker) -> None:
    banks = Banks(worker)
    await banks.fill(10_000, fee=Fee(basis_points=100))
    swept = await taken(await worker.ask(**banks.own("fee_sweep", 90, "1")))
    edit = "UPDATE fund.orders SET amount = $2 WHERE id = $1"
    await worker.value(edit, swept.id, 1)
    answer = await worker.ask(**banks.own("fee_sweep", 99, "2"))
    assert isinstance(answer, OrderFault)
    assert answer.tampered
    await worker.value(edit, swept.id, 90)
    assert refused(await worker.ask(**banks.own("fee_sweep", 99, "2")), Code.SWEEP_EXCEEDS_INCOME)


async def test_a_fee_sweep_takes_only_income_that_was_not_swept_and_not_spent(worker: FundWorker) -> None:
    banks = Banks(worker)
    await banks.fill(10_000, fee=Fee(basis_points=100))
    await worker.done("channel_cost", order_no=f"c-{worker.salt}", channel=banks.a, amount=30, currency=banks.currency)
    assert refused(await worker.ask(**banks.own("fee_sweep", 71)), Code.SWEEP_EXCEEDS_INCOME)
    await taken(await worker.ask(**banks.own("fee_sweep", 50, "1")))
    assert await banks.hold("equity:own", "income:fee") == [9_920, 0, -50, 100]
    assert refused(await worker.ask(**banks.own("fee_sweep", 21, "2")), Code.SWEEP_EXCEEDS_INCOME)
    waiting = [await worker.requested(**banks.own("fee_sweep", 15, n)) for n in "34"]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    assert sorted(type(answer).__name__ for answer in answers) == ["Refusal", "Taken"]
    again = await worker.requested(**banks.own("fee_sweep", 5, "6"))
    # A repeated approval is answered with the order, although the order itself has taken the rest.
    answers = await asyncio.gather(*(worker.batcher.approve(again.id, CHECKER) for _ in range(3)))
    assert [type(answer) for answer in answers] == [Taken] * 3
    named = {"of_kind": "fee_sweep", "of_order_no": f"1-{worker.salt}", "reason": "wrong bank"}
    await worker.done("reversal", order_no=f"r-{worker.salt}", **named)
    await taken(await worker.ask(**banks.own("fee_sweep", 50, "5")))
    assert await banks.hold("equity:own", "income:fee") == [9_900, 0, -70, 100]


async def test_a_payable_is_paid_at_most_once(worker: FundWorker) -> None:
    banks = Banks(worker)
    merchant = await banks.fill(1_000)
    fee = {"merchant": merchant, "channel": banks.a, "against": "payable", "amount": 40}
    assert refused(await worker.ask(**banks.own("payable_payment", 1)), Code.PAYABLE_EXCEEDED)
    await worker.done("dispute_fee", order_no="f", **fee)
    assert await banks.hold(f"payable:{banks.a}") == [1_000, 0, 40]
    assert refused(await worker.ask(**banks.own("payable_payment", 41, "1")), Code.PAYABLE_EXCEEDED)
    waiting = [await worker.requested(**banks.own("payable_payment", 25, n)) for n in "23"]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    assert sorted(type(answer).__name__ for answer in answers) == ["Refusal", "Taken"]
    assert await banks.hold(f"payable:{banks.a}") == [975, 0, 15]


async def test_own_money_needs_two_identities(worker: FundWorker) -> None:
    banks = Banks(worker)
    for asked in (
        banks.transfer(5),
        banks.own("own_funds", 5, direction="in"),
        {**banks.own("suspense_clearing", 5, "s", direction="more", against="income"), "channel": None},
    ):
        answer = await worker.batcher.ask(request_of(**asked), MODULE)
        if isinstance(answer, Taken):
            assert answer.order.state is State.CREATED
            assert refused(await worker.batcher.approve(answer.order.id, MODULE), Code.APPROVAL_NEEDS_ANOTHER, None)
        else:
            assert refused(answer, Code.SUSPENSE_EXCEEDED)
