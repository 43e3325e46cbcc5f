"""Invoices of channels: each counts once, and payments by two people never exceed what is unpaid."""

import asyncio
from typing import Any

import msgspec
import pytest

from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.order import PLATFORM, Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.transitions import APPROVE_WITHIN
from fundledger.fund.store.orders import read_order
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.running import RunningService
from tests.support.tampering import any_state


def no(worker: FundWorker, number: str) -> str:
    """Return an order number of the platform that no other test uses."""
    return f"{number}-{worker.salt}"


def invoice_of(worker: FundWorker, number: str, amount: int = 1_000, **more: Any) -> dict[str, Any]:
    named = {"order_no": no(worker, number), "channel": f"c-{worker.salt}", "invoice_no": f"INV-{number}"}
    return {**named, "amount": amount, "currency": "CNY", "period": "2026-02", **more}


async def invoice(worker: FundWorker, number: str, amount: int = 1_000, **more: Any) -> Order:
    return await worker.done("channel_invoice", **invoice_of(worker, number, amount, **more))


def payment_of(worker: FundWorker, number: str, of: str, amount: int, **more: Any) -> dict[str, Any]:
    named = {"order_no": no(worker, number), "invoice_order_no": no(worker, of), "channel": f"c-{worker.salt}"}
    return {**named, "amount": amount, "currency": "CNY", **more}


async def pay(worker: FundWorker, number: str, of: str, amount: int, **more: Any) -> Answer:
    return await worker.ask("payable_payment", **payment_of(worker, number, of, amount, **more))


async def reverse(worker: FundWorker, kind: str, of: str, number: str) -> Answer:
    named = {"order_no": no(worker, number), "of_order_no": no(worker, of)}
    return await worker.ask("reversal", of_kind=kind, reason="wrong", **named)


def refused(answer: Answer, code: Code, field: str | None) -> str:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field)
    return answer.detail


class Books:
    """The accounts of the channel of a test."""

    def __init__(self, worker: FundWorker) -> None:
        self.worker = worker
        self.cost = self.owed = 0

    async def begin(self) -> "Books":
        self.cost, self.owed = 0, 0
        self.cost, self.owed, _ = await self.now()
        return self

    async def now(self) -> tuple[int, int, int]:
        """Return the growth of costs, what is payable to the channel, and the balance of its bank account."""
        payable = await self.worker.balance(f"payable:c-{self.worker.salt}")
        bank = await self.worker.balance(f"bank:c-{self.worker.salt}")
        return await self.worker.balance("expense:channel") - self.cost, payable - self.owed, bank


async def funded(worker: FundWorker, amount: int = 5_000) -> Books:
    """Return the books of a channel that has received this amount, and to which more is owed than one invoice."""
    await worker.pay(await worker.merchant(), "funds", amount)
    await invoice(worker, "other", 50_000)
    return await Books(worker).begin()


async def test_an_invoice_is_a_cost_that_is_payable_until_it_is_paid(worker: FundWorker) -> None:
    books = await funded(worker)
    order = await invoice(worker, "i", 1_000)
    assert (order.state, order.merchant, order.channel_ref, order.period) == (
        State.POSTED,
        PLATFORM,
        "INV-i",
        "2026-02",
    )
    assert await books.now() == (1_000, 1_000, 5_000)
    first = await pay(worker, "p", "i", 400, channel_ref="P-1")
    assert isinstance(first, Taken)
    paid = first.order
    assert (paid.state, paid.channel, paid.currency, paid.period) == (State.POSTED, order.channel, "CNY", "2026-02")
    assert await books.now() == (1_000, 600, 4_600)
    assert isinstance(await pay(worker, "p2", "i", 600), Taken)
    assert await books.now() == (1_000, 0, 4_000)


async def test_the_number_of_an_invoice_counts_once_for_its_channel(worker: FundWorker) -> None:
    first = await invoice(worker, "i")
    answer = await worker.ask("channel_invoice", **invoice_of(worker, "j", invoice_no="INV-i", period="2026-03"))
    assert f"channel_invoice {first.order_no}" in refused(answer, Code.RECEIPT_ALREADY_BOOKED, "invoice_no")
    replay = await worker.ask("channel_invoice", **invoice_of(worker, "i"))
    assert isinstance(replay, Taken)
    assert replay.replay
    other = await worker.ask("channel_invoice", **invoice_of(worker, "i", 999))
    refused(other, Code.ORDER_NO_REUSED, "order_no")
    # Another channel has its own numbers. A number of an invoice is no reference of a movement of money.
    await invoice(worker, "k", invoice_no="INV-i", channel=f"d-{worker.salt}")
    await worker.pay(await worker.merchant(), "funds", 1_000, channel_ref="INV-i")
    assert isinstance(await pay(worker, "p", "i", 1, channel_ref="INV-i"), Taken)


async def test_a_reference_of_a_payment_counts_once_among_all_that_goes_out(worker: FundWorker) -> None:
    books = await funded(worker)
    await invoice(worker, "i")
    assert isinstance(await pay(worker, "p", "i", 100, channel_ref="OUT"), Taken)
    refused(await pay(worker, "q", "i", 100, channel_ref="OUT"), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    cost = {"channel": f"c-{worker.salt}", "amount": 5, "currency": "CNY"}
    await worker.done("channel_cost", order_no=no(worker, "c"), **cost)
    assert await books.now() == (1_005, 900, 4_895)


@pytest.mark.parametrize("ended", ["rejected", "expired"])
async def test_a_payment_that_is_not_approved_keeps_neither_money_nor_reference(worker: FundWorker, ended: str) -> None:
    books = await funded(worker)
    await invoice(worker, "i")
    if ended == "expired":
        worker.days_back = APPROVE_WITHIN.days + 1
    waits = await worker.requested("payable_payment", **payment_of(worker, "p", "i", 1_000, channel_ref="OUT"))
    worker.days_back = 0
    if ended == "rejected":
        assert isinstance(await worker.batcher.reject(waits.id, "wrong", CHECKER), Taken)
    else:
        assert (await worker.batcher.expire_some())[0] == 1
    assert isinstance(await pay(worker, "q", "i", 1_000, channel_ref="OUT"), Taken)
    assert await books.now() == (1_000, 0, 4_000)
    found = await read_order(worker.pool, waits.id)
    assert found is not None
    assert found.state == ended


async def test_who_requests_a_payment_does_not_approve_it(worker: FundWorker) -> None:
    await funded(worker)
    await invoice(worker, "i")
    waits = await worker.requested("payable_payment", **payment_of(worker, "p", "i", 1_000))
    answer = await worker.batcher.approve(waits.id, "tester")
    assert isinstance(answer, Refusal)
    assert answer.code is Code.APPROVAL_NEEDS_ANOTHER
    assert isinstance(await worker.batcher.approve(waits.id, CHECKER), Taken)


async def test_a_payment_never_exceeds_what_is_unpaid(worker: FundWorker) -> None:
    await funded(worker)
    await invoice(worker, "i")
    detail = refused(await pay(worker, "p", "i", 1_001), Code.INVOICE_EXCEEDED, "amount")
    assert detail == "1000 of the invoice's 1000 is unpaid"
    assert isinstance(await pay(worker, "q", "i", 600), Taken)
    refused(await pay(worker, "r", "i", 401), Code.INVOICE_EXCEEDED, "amount")
    refused(await pay(worker, "s", "nothing", 1), Code.ORDER_NOT_FOUND, "invoice_order_no")


async def test_requests_that_wait_reserve_nothing_and_approvals_decide(worker: FundWorker) -> None:
    books = await funded(worker, 20_000)
    await invoice(worker, "i", 1_000)
    waiting = [await worker.requested("payable_payment", **payment_of(worker, f"p{i}", "i", 300)) for i in range(20)]
    answers = await asyncio.gather(*(worker.batcher.approve(order.id, CHECKER) for order in waiting))
    assert sum(isinstance(answer, Taken) for answer in answers) == 3
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} == {Code.INVOICE_EXCEEDED}
    assert await books.now() == (1_000, 100, 19_100)


async def test_workers_that_approve_concurrently_pay_an_invoice_once(
    fund_database: str, service: RunningService
) -> None:
    begin = fund_database, service.base_url, service.fund_token
    async with FundWorker(*begin) as one, FundWorker(*begin, salt=one.salt) as two:
        books = await funded(one, 20_000)
        await invoice(one, "i", 1_000)
        waiting = [await one.requested("payable_payment", **payment_of(one, f"p{i}", "i", 700)) for i in range(12)]
        asked = ((one, two)[i % 2].batcher.approve(order.id, CHECKER) for i, order in enumerate(waiting))
        answers = await asyncio.gather(*asked)
        assert sum(isinstance(answer, Taken) for answer in answers) == 1, answers
        assert await books.now() == (1_000, 300, 19_300)


async def test_an_invoice_is_reversed_only_if_nothing_of_it_is_paid(worker: FundWorker) -> None:
    books = await funded(worker)
    await invoice(worker, "i")
    assert isinstance(await pay(worker, "p", "i", 400), Taken)
    refused(await reverse(worker, "channel_invoice", "i", "v"), Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    undone = await reverse(worker, "payable_payment", "p", "v2")
    assert isinstance(undone, Taken)
    assert undone.order.state is State.POSTED
    assert await books.now() == (1_000, 1_000, 5_000)
    waits = await worker.requested("payable_payment", **payment_of(worker, "late", "i", 1_000))
    assert isinstance(await reverse(worker, "channel_invoice", "i", "v3"), Taken)
    assert await books.now() == (0, 0, 5_000)
    refused(await worker.batcher.approve(waits.id, CHECKER), Code.ORDER_ALREADY_REVERSED, "invoice_order_no")
    refused(await pay(worker, "q", "i", 1), Code.ORDER_ALREADY_REVERSED, "invoice_order_no")
    # The number of a reversed invoice is free: the corrected invoice often has the same number.
    await invoice(worker, "i2", 900, invoice_no="INV-i")
    assert await books.now() == (900, 900, 5_000)


async def test_a_payment_and_the_reversal_of_its_invoice_exclude_each_other(worker: FundWorker) -> None:
    await funded(worker)
    for i in range(5):
        await invoice(worker, f"i{i}", 10)
        payment = await worker.requested("payable_payment", **payment_of(worker, f"p{i}", f"i{i}", 10))
        named = {"order_no": no(worker, f"v{i}"), "of_order_no": no(worker, f"i{i}")}
        reversal = await worker.requested("reversal", of_kind="channel_invoice", reason="r", **named)
        answers = await asyncio.gather(*(worker.batcher.approve(one.id, CHECKER) for one in (payment, reversal)))
        assert sum(isinstance(answer, Taken) for answer in answers) == 1, answers


async def test_a_payment_that_the_ledger_refuses_leaves_the_invoice_unpaid(worker: FundWorker) -> None:
    """The account of the channel was frozen."""
    books = await funded(worker)
    await invoice(worker, "i")
    account = f"payable:c-{worker.salt}"
    await worker.accounts.freeze(account, "tests", "all")
    answer = await pay(worker, "p", "i", 1_000)
    assert isinstance(answer, Taken)
    assert answer.order.state is State.REFUSED
    await worker.accounts.unfreeze(account)
    assert isinstance(await pay(worker, "q", "i", 1_000), Taken)
    assert await books.now() == (1_000, 0, 4_000)


async def test_a_payment_whose_worker_died_is_recovered_once(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = await funded(worker)
    await invoice(worker, "i")
    waits = await worker.requested("payable_payment", **payment_of(worker, "p", "i", 1_000))

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as killed:
        killed.setattr(worker.posting, "post", dies)
        answer = asyncio.ensure_future(worker.batcher.approve(waits.id, CHECKER))
        await asyncio.wait([answer], timeout=5.0)
    await worker.start_worker()
    found = await read_order(worker.pool, waits.id)
    assert found is not None
    assert found.state is State.POSTING
    # Until the outcome is known, nothing else of the invoice can be paid.
    refused(await pay(worker, "q", "i", 1), Code.INVOICE_EXCEEDED, "amount")
    for _ in range(2):
        await worker.recoverer.recover_some()
    assert await books.now() == (1_000, 0, 4_000)


async def test_an_invoice_that_was_edited_is_not_paid(fund_database: str, service: RunningService) -> None:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        await funded(worker)
        order = await invoice(worker, "i", 10)
        async with any_state(worker.pool) as fund:
            await fund.execute("UPDATE fund.orders SET amount = 1000 WHERE id = $1", order.id)
        answer = await pay(worker, "p", "i", 1_000)
        assert isinstance(answer, OrderFault)
        assert answer.tampered


@pytest.mark.parametrize("period", ["2026-13", "2026-1", "26-01", "2026-00", "2026-02-01", ""])
def test_a_period_is_a_month(period: str) -> None:
    members = {"order_no": "1", "channel": "c", "invoice_no": "I", "amount": 1, "currency": "CNY"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**members, "period": period}, REQUESTS[Kind.CHANNEL_INVOICE])
    msgspec.convert({**members, "period": "2026-12"}, REQUESTS[Kind.CHANNEL_INVOICE])
