"""Refunds with an end: the money is in transit until the channel has paid it or not. A bounced refund leaves the merchant
and the payment as before it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import pytest

from fundledger.client.types import Voucher
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model import accounts, drafts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.flows import Ending
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store import sums
from fundledger.fund.store.orders import read_order
from tests.fund.bank import Scripted
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.length import unless_long
from tests.support.running import RunningService
from tests.support.tampering import any_state

FEE = Fee(basis_points=100)


class Cut(AccountGateway):
    """An account gateway that fails before it posts, or that loses the result."""

    before = False
    after = False

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[PostingResult | None]:
        if self.before:
            raise GatewayFault("cut")
        results = await super().post_vouchers(vouchers)
        if self.after:
            raise GatewayFault("cut")
        return results


class Refunding(FundWorker):
    gateway: Cut

    def __init__(self, dsn: str, base_url: str, token: str) -> None:
        super().__init__(dsn, base_url, token)
        self.gateway = Cut(self.accounts)

    async def refund(self, merchant: str, number: str, payment: str, amount: int) -> Order:
        members = {"merchant": merchant, "payment_order_no": payment, "amount": amount}
        return await self.done("refund", order_no=number, **members)

    async def ended(self, order: Order, ending: Ending, ref: str | None = None) -> Order:
        answer = await self.batcher.end(order.id, ending, ref, "closed" if ending == "bounced" else None, "tests")
        assert isinstance(answer, Taken), answer
        return answer.order

    async def stored(self, order: Order) -> Order:
        found = await read_order(self.pool, order.id)
        assert found is not None
        return found

    async def progress(self, number: str) -> dict[str, Any]:
        """Return the row of fund.payments of a payment, without its MAC."""
        statement = "SELECT p.* FROM fund.payments p JOIN fund.orders o ON o.id = p.order_id WHERE o.order_no = $1"
        row = await self.pool.fetchrow(statement, number)
        assert row is not None
        return {name: value for name, value in row.items() if name not in ("mac", "mac_key")}

    async def channel_moved(self) -> tuple[int, int]:
        """Return the balances of the bank account and of the refunds in transit of the channel of the test."""
        name = f"c-{self.salt}"
        bank, transit = accounts.bank(name, "CNY"), accounts.refund_transit(name, "CNY")
        return await self.balance(bank), await self.balance(transit)

    async def start_again(self) -> None:
        """Create the objects of a new worker, which does not know the accounts that exist."""
        self.gateway = Cut(self.accounts)
        await self.start_worker()

    async def events_of(self, order: Order) -> list[str]:
        rows = await self.pool.fetch("SELECT state FROM fund.events WHERE order_id = $1 ORDER BY seq", order.id)
        return [row["state"] for row in rows]

    async def recover(self) -> None:
        """Run the recoverer until no order is due."""
        while await self.value("SELECT count(*) FROM fund.orders WHERE due_at IS NOT NULL AND state <> 'parked'"):
            await self.value("UPDATE fund.orders SET due_at = now() WHERE due_at IS NOT NULL")
            await self.recoverer.recover_some()


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[Refunding]:
    async with Refunding(fund_database, service.base_url, service.fund_token) as worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


def refused(answer: object, code: Code, field: str | None = None) -> None:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field)


# --- The way of the money ---------------------------------------------------------------------------------------------


async def test_the_money_of_a_refund_is_in_transit_until_it_is_paid(worker: Refunding) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000)
    order = await worker.refund(merchant, "r", "p", 4_000)
    assert (order.state, order.voucher_format) == (State.POSTED, 3)
    assert await worker.of(merchant) == (9_900 - 3_960, 0, 0)
    assert await worker.channel_moved() == (10_000, 4_000)
    paid = await worker.ended(order, "paid", f"out-{worker.salt}")
    assert (paid.state, paid.channel_ref) == (State.PAID, f"out-{worker.salt}")
    assert await worker.of(merchant) == (9_900 - 3_960, 0, 0)
    assert await worker.channel_moved() == (6_000, 0)
    assert await worker.events_of(order) == ["posted", "paid"]
    assert (await worker.progress("p"))["refunded"] == 4_000


@pytest.mark.parametrize("settle", ["now", "later", "partly"])
@pytest.mark.parametrize("amount", [1, 99, 3_333, 7_001, 10_000])
async def test_a_bounced_refund_leaves_everything_as_it_was(worker: Refunding, settle: str, amount: int) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000, settle="now" if settle == "now" else "later")
    if settle == "partly":
        await worker.done("settlement", merchant=merchant, order_no="s", amount=4_000)
    # The first refund inserts the row of a payment that is settled immediately.
    await worker.ended(await worker.refund(merchant, "first", "p", 1), "bounced")
    income = await worker.balance(accounts.fee_income("CNY"))
    before = await worker.of(merchant), await worker.progress("p"), await worker.channel_moved()
    order = await worker.refund(merchant, "r", "p", amount)
    assert order.from_pending == {"now": 0, "later": amount, "partly": min(amount, 6_000)}[settle]
    assert await worker.progress("p") != before[1]
    bounced = await worker.ended(order, "bounced")
    assert (bounced.state, bounced.reason, bounced.channel_ref) == (State.BOUNCED, "closed", None)
    assert (await worker.of(merchant), await worker.progress("p"), await worker.channel_moved()) == before
    assert await worker.balance(accounts.fee_income("CNY")) == income
    # The whole payment can be refunded, and the pending part can be settled.
    again = await worker.refund(merchant, "r2", "p", amount)
    assert (again.state, again.fee, again.fee_waived) == (State.POSTED, order.fee, order.fee_waived)
    await worker.ended(again, "bounced")
    if settle != "now":
        rest = await worker.done("settlement", merchant=merchant, order_no="rest")
        assert rest.amount == (10_000 if settle == "later" else 6_000)
        assert await worker.of(merchant) == (9_900, 0, 0)


async def test_a_refund_in_transit_counts_against_its_payment_until_it_bounces(worker: Refunding) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    order = await worker.refund(merchant, "r", "p", 60)
    of = {"merchant": merchant, "payment_order_no": "p"}
    undo = {"merchant": merchant, "of_kind": "payment", "of_order_no": "p", "reason": "twice"}
    refused(await worker.ask("refund", order_no="more", amount=41, **of), Code.REFUND_EXCEEDS_PAYMENT, "amount")
    refused(await worker.ask("chargeback", order_no="cb", amount=41, **of), Code.CHARGEBACK_EXCEEDS_PAYMENT, "amount")
    refused(await worker.ask("reversal", order_no="u", **undo), Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    await worker.ended(order, "bounced")
    assert (await worker.done("reversal", order_no="u2", **undo)).state is State.POSTED
    assert await worker.of(merchant) == (0, 0, 0)


async def test_a_bounced_refund_of_a_payment_that_was_charged_back_meanwhile(worker: Refunding) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100, settle="later")
    order = await worker.refund(merchant, "r", "p", 60)
    await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="p", amount=40)
    assert await worker.of(merchant) == (0, 0, 0)
    await worker.ended(order, "bounced")
    assert await worker.of(merchant) == (0, 60, 0)
    assert (await worker.done("settlement", merchant=merchant, order_no="s")).amount == 60


# --- Requests that end a refund ---------------------------------------------------------------------------------------


async def test_an_end_is_repeated_and_never_changed(worker: Refunding) -> None:
    merchant, ref = await worker.merchant(), f"out-{worker.salt}"
    await worker.pay(merchant, "p", 100)
    orders = {end: await worker.refund(merchant, end, "p", 10) for end in ("paid", "bounced")}
    await worker.ended(orders["paid"], "paid", ref)
    await worker.ended(orders["bounced"], "bounced")
    end = worker.batcher.end
    for ending, others in (("paid", "bounced"), ("bounced", "paid")):
        again = await end(orders[ending].id, ending, None, None, "tests")  # type: ignore[arg-type]
        assert isinstance(again, Taken)
        assert again.replay
        code = Code.REFUND_PAID if ending == "paid" else Code.REFUND_BOUNCED
        refused(await end(orders[ending].id, others, None, "why", "tests"), code)  # type: ignore[arg-type]
    refused(await end(orders["paid"].id, "paid", f"{ref}-2", None, "tests"), Code.REFUND_PAID, "channel_ref")
    assert await worker.events_of(orders["paid"]) == ["posted", "paid"]
    assert await worker.events_of(orders["bounced"]) == ["posted", "bounced"]


async def test_only_a_refund_that_is_posted_ends(worker: Refunding) -> None:
    merchant = await worker.merchant()
    payment = await worker.pay(merchant, "p", 100)
    await worker.accounts.freeze(f"merchant:{merchant}:available")
    no = await worker.refund(merchant, "no", "p", 10)
    assert no.state is State.REFUSED
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    refused(await worker.batcher.end(no.id, "paid", None, None, "tests"), Code.REFUND_NOT_POSTED)
    refused(await worker.batcher.end(payment.id, "paid", None, None, "tests"), Code.ORDER_NOT_FOUND)
    refused(await worker.batcher.end(uuid4(), "bounced", None, "why", "tests"), Code.ORDER_NOT_FOUND)


async def test_a_refund_of_an_earlier_format_has_no_end(worker: Refunding, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its voucher credited the bank account. If it bounced, the money would come back from an account without money."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    for format_ in (1, 2):
        monkeypatch.setattr(drafts, "REFUND_FORMAT", format_)
        order = await worker.refund(merchant, f"r{format_}", "p", 10)
        assert order.voucher_format == format_
        for ending in ("paid", "bounced"):
            answer = await worker.batcher.end(order.id, ending, None, "why", "tests")  # type: ignore[arg-type]
            refused(answer, Code.REFUND_PAID)
        assert (await worker.stored(order)).state is State.POSTED
    assert await worker.channel_moved() == (80, 0)


async def test_a_reference_that_pays_a_refund_is_of_one_order(worker: Refunding) -> None:
    merchant, ref = await worker.merchant(), f"ref-{worker.salt}"
    await worker.pay(merchant, "p", 100, channel_ref=ref)
    one, two = [await worker.refund(merchant, number, "p", 10) for number in ("one", "two")]
    await worker.ended(one, "paid", ref)  # money that came in may have the same reference
    refused(await worker.batcher.end(two.id, "paid", ref, None, "tests"), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    members = {"merchant": merchant, "order_no": "cb", "payment_order_no": "p", "amount": 10}
    refused(await worker.ask("chargeback", channel_ref=ref, **members), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    assert (await worker.ended(two, "paid", f"{ref}-2")).state is State.PAID


async def test_concurrent_ends_of_a_refund_have_one_outcome(worker: Refunding) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000)
    for number in range(unless_long(5, 40)):
        order = await worker.refund(merchant, str(number), "p", 100)
        asked: list[Ending] = ["paid", "bounced"] * 3
        answers = await asyncio.gather(*(worker.batcher.end(order.id, end, None, "r", "tests") for end in asked))
        ends = {answer.order.state for answer in answers if isinstance(answer, Taken)}
        assert len(ends) == 1
        other = Code.REFUND_PAID if ends == {State.PAID} else Code.REFUND_BOUNCED
        assert {answer.code for answer in answers if isinstance(answer, Refusal)} == {other}


# --- Debts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [60, 100, 101])
async def test_the_returned_money_of_a_bounced_refund_repays_the_debt(worker: Refunding, amount: int) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "first", 100)
    await worker.pay(merchant, "p", amount)
    order = await worker.refund(merchant, "r", "p", amount)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=f"c-{worker.salt}")
    await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="first", amount=100)
    assert await worker.of(merchant) == (0, 0, 100)
    ended = await worker.ended(order, "bounced")
    repaid = min(100, amount)
    assert ended.end_set_off == repaid
    assert await worker.of(merchant) == (amount - repaid, 0, 100 - repaid)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 100 - repaid


async def test_the_pending_part_of_a_bounced_refund_repays_nothing(worker: Refunding) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "first", 10_000)
    await worker.pay(merchant, "p", 10_000, settle="later")
    await worker.done("settlement", merchant=merchant, order_no="s", amount=4_000)
    order = await worker.refund(merchant, "r", "p", 10_000)
    available, pending, _ = await worker.of(merchant)
    assert pending == 0
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=available, channel=f"c-{worker.salt}")
    await worker.done("chargeback", merchant=merchant, order_no="cb", payment_order_no="first", amount=10_000)
    ended = await worker.ended(order, "bounced")
    assert ended.end_set_off == 3_960
    assert await worker.of(merchant) == (0, 6_000, 10_000 - 3_960)


# --- Failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["paid", "bounced"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_end_that_is_recorded_is_posted_once_after_a_failure(
    worker: Refunding, ending: Ending, when: str
) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000, settle="later")
    before = await worker.of(merchant), await worker.progress("p"), await worker.channel_moved()
    order = await worker.refund(merchant, "r", "p", 7_000)
    setattr(worker.gateway, when, True)
    fault = await worker.batcher.end(order.id, ending, None, "why", "tests")
    assert isinstance(fault, OrderFault) or (isinstance(fault, Taken) and fault.order.state is State.POSTED)
    stored = await worker.stored(order)
    assert (stored.state, stored.ending) == (State.POSTED, ending)
    assert (await worker.progress("p"))["refunded"] == 7_000, "released with the recorded end only"
    other: Ending = "bounced" if ending == "paid" else "paid"
    code = Code.REFUND_PAID if ending == "paid" else Code.REFUND_BOUNCED
    refused(await worker.batcher.end(order.id, other, None, "why", "tests"), code)
    setattr(worker.gateway, when, False)
    await worker.recover()
    assert (await worker.stored(order)).state == ending
    if ending == "bounced":
        assert (await worker.of(merchant), await worker.progress("p"), await worker.channel_moved()) == before
    else:
        assert await worker.of(merchant) == (0, 3_000, 0)
        assert await worker.channel_moved() == (3_000, 0)


async def test_a_refund_that_bounces_to_a_frozen_merchant_ends_when_the_merchant_is_open(worker: Refunding) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    order = await worker.refund(merchant, "r", "p", 60)
    await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "all")
    await worker.batcher.end(order.id, "bounced", None, "closed", "tests")
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE due_at IS NOT NULL")
    await worker.recoverer.recover_some()
    stored = await worker.stored(order)
    assert (stored.state, stored.ending, stored.attempt > 0) == (State.POSTED, "bounced", True)
    assert (await worker.progress("p"))["refunded"] == 60
    assert await worker.channel_moved() == (100, 60)
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    await worker.recover()
    assert (await worker.stored(order)).state is State.BOUNCED
    assert await worker.of(merchant) == (100, 0, 0)
    assert (await worker.progress("p"))["refunded"] == 0


async def test_a_payment_row_that_was_edited_gets_nothing_back(worker: Refunding) -> None:
    merchant = await worker.merchant()
    payment = await worker.pay(merchant, "p", 100)
    order = await worker.refund(merchant, "r", "p", 60)
    edit = "UPDATE fund.payments SET refunded = $2 WHERE order_id = $1"
    await worker.value(edit, payment.id, 59)
    await worker.ended(order, "bounced")
    assert (await worker.progress("p"))["refunded"] == 59
    again = await worker.ask("refund", merchant=merchant, order_no="r2", payment_order_no="p", amount=1)
    assert isinstance(again, OrderFault)
    assert again.tampered
    await worker.value(edit, payment.id, 60)
    # An operator restores the row and its MAC: see the runbook of tampered rows.
    progress = await worker.progress("p")
    assert progress["refunded"] == 60
    await restore(worker, payment, refunded=0)


@pytest.mark.parametrize(
    ("ending", "edit"),
    [
        ("paid", "state = 'sent', due_at = created_at"),
        ("paid", "state = 'posted', ending = NULL, end_voucher_id = NULL"),
        ("bounced", "state = 'posted', due_at = created_at"),
        ("bounced", "state = 'paid', ending = 'paid'"),
        (None, "ending = 'bounced', due_at = created_at"),
        (None, "voucher_format = 2"),
        (None, "amount = 1000"),
    ],
)
async def test_an_edited_refund_is_neither_sent_nor_ended(worker: Refunding, ending: Any, edit: str) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    order = await worker.refund(merchant, "r", "p", 60)
    if ending is not None:
        await worker.ended(order, ending)
    before = await worker.of(merchant), await worker.progress("p"), await worker.channel_moved()
    row = await worker.pool.fetchrow("SELECT * FROM fund.orders WHERE id = $1", order.id)
    async with any_state(worker.pool) as fund:
        await fund.execute(f"UPDATE fund.orders SET {edit} WHERE id = $1", order.id)
    bank = Scripted(Standing.PAID)
    await Payouts(worker.pool, worker.batcher, {f"c-{worker.salt}": bank}, Pace(rate=10_000)).pay_out_some()
    await worker.recoverer.recover_some()
    for end in ("paid", "bounced"):
        answer = await worker.batcher.end(order.id, end, None, "r", "tests")  # type: ignore[arg-type]
        assert isinstance(answer, OrderFault), answer
        assert answer.tampered
    assert bank.refs == []
    assert (await worker.of(merchant), await worker.progress("p"), await worker.channel_moved()) == before
    columns = "state", "ending", "end_voucher_id", "due_at", "voucher_format", "amount", "stuck_from", "problem", "mac"
    back = ", ".join(f"{name} = ${i + 2}" for i, name in enumerate(columns))
    async with any_state(worker.pool) as fund:
        await fund.execute(f"UPDATE fund.orders SET {back} WHERE id = $1", order.id, *(row[name] for name in columns))
        await fund.execute("ALTER TABLE fund.events DISABLE TRIGGER events_append_only")
        await fund.execute("DELETE FROM fund.events WHERE order_id = $1 AND state = 'stuck'", order.id)
        await fund.execute("ALTER TABLE fund.events ENABLE ALWAYS TRIGGER events_append_only")


async def restore(worker: Refunding, payment: Order, **members: Any) -> None:
    """Write members of the row of a payment, with a right MAC."""
    async with worker.pool.acquire() as connection, connection.transaction():
        rows, _ = await sums.lock_payments(connection, worker.macs, {payment.id})
        for name, value in members.items():
            setattr(rows[payment.id], name, value)
        await sums.write_payments(connection, worker.macs, rows.values())


async def test_a_channel_that_an_earlier_version_opened_takes_refunds(worker: Refunding) -> None:
    """The version before opened no account of refunds in transit. The process that posts the refund opens it."""
    merchant, opened = await worker.merchant(), accounts.of_channel
    before = pytest.MonkeyPatch()
    transit = accounts.refund_transit(f"c-{worker.salt}", "CNY")
    before.setattr(accounts, "of_channel", lambda *of: [name for name in opened(*of) if name.id != transit])
    await worker.pay(merchant, "p", 100)
    before.undo()
    assert await worker.accounts.account(transit) is None
    await worker.start_again()
    order = await worker.refund(merchant, "r", "p", 60)
    assert order.state is State.POSTED
    assert await worker.channel_moved() == (100, 60)
    await worker.ended(order, "paid")


# --- Concurrent refunds -----------------------------------------------------------------------------------------------------


async def test_refunds_that_bounce_while_others_are_requested_never_exceed_the_payment(worker: Refunding) -> None:
    """The sum of the refunds that have not bounced is never more than the payment, and each bounce makes room."""
    merchant, many = await worker.merchant(fee=FEE), unless_long(40, 200)
    payment = await worker.pay(merchant, "p", many * 50, settle="later")

    async def one(number: int) -> State | Code:
        members = {"merchant": merchant, "payment_order_no": "p", "amount": 100}
        answer = await worker.ask("refund", order_no=str(number), **members)
        if isinstance(answer, Refusal):
            return answer.code
        assert isinstance(answer, Taken)
        return (await worker.ended(answer.order, "bounced" if number % 3 else "paid")).state

    ends = await asyncio.gather(*map(one, range(many)))
    paid, row = ends.count(State.PAID), await worker.progress("p")
    assert set(ends) <= {State.PAID, State.BOUNCED, Code.REFUND_EXCEEDS_PAYMENT}
    assert (row["refunded"], row["refunded_unsettled"]) == (100 * paid, 100 * paid)
    assert await worker.of(merchant) == (0, payment.amount - 100 * paid, 0)
    assert await worker.channel_moved() == (payment.amount - 100 * paid, 0)
    assert (
        await worker.value("SELECT count(*) FROM fund.orders WHERE kind = $1 AND due_at IS NOT NULL", Kind.REFUND) == 0
    )
