"""Reservations of refused and bounced orders are released: every column is as before, also that of the order's day."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import pytest

from fundledger.client.account_service import AccountService
from fundledger.client.faults import OutcomeUnknown, Problem
from fundledger.client.types import Account, Voucher, VoucherResult
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.requests import Fee
from fundledger.fund.poster import ATTEMPTS_MAX
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService


class Scripted(AccountService):
    """The account service, with results that are lost."""

    lost = False
    """If True, vouchers are posted, but the responses do not arrive."""
    unsure_of: str | None = None
    """The reference of a voucher that is posted, but has status 503 in the response to the batch."""

    async def post_vouchers(self, vouchers: Sequence[Voucher], atomic: bool = False) -> list[VoucherResult]:
        results = await super().post_vouchers(vouchers, atomic)
        if self.lost:
            raise OutcomeUnknown("the answer is lost")
        unknown = Problem({"type": "urn:fundledger:problem:outcome-unknown", "status": 503})
        return [
            VoucherResult(result.id, "refused", unknown) if voucher.reference == self.unsure_of else result
            for voucher, result in zip(vouchers, results, strict=True)
        ]


class OrderBatcher(FundWorker):
    accounts: Scripted

    def __init__(self, dsn: str, base_url: str, token: str) -> None:
        super().__init__(dsn, base_url, token, wait_s=5.0)
        self.accounts = Scripted(base_url, token)
        self.gateway._service = self.accounts

    @property
    def channel(self) -> str:
        return f"c-{self.salt}"

    async def payment_row(self, order_no: str) -> dict[str, Any]:
        row = await self.pool.fetchrow(
            "SELECT p.* FROM fund.payments p JOIN fund.orders o ON o.id = p.order_id WHERE o.order_no = $1", order_no
        )
        assert row is not None
        return dict(row)

    async def days(self) -> list[tuple[Any, int]]:
        rows = await self.pool.fetch("SELECT day, amount FROM fund.withdrawal_days ORDER BY day")
        return [(row["day"], row["amount"]) for row in rows]

    async def state(self, order: Order) -> str:
        return await self.value("SELECT state FROM fund.orders WHERE id = $1", order.id)

    async def withdraw(self, merchant: str, order_no: str, amount: int) -> Order:
        return await self.done("withdrawal", merchant=merchant, order_no=order_no, amount=amount, channel=self.channel)

    async def yesterday(self, merchant: str, order_no: str, amount: int) -> Order:
        self.days_back = 1
        try:
            return await self.withdraw(merchant, order_no, amount)
        finally:
            self.days_back = 0

    async def recover(self) -> None:
        while await self.value("SELECT count(*) FROM fund.orders WHERE due_at IS NOT NULL"):
            await self.recoverer.recover_some()


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[OrderBatcher]:
    async with OrderBatcher(fund_database, service.base_url, service.fund_token) as worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


async def test_a_refused_refund_of_a_partly_settled_payment_leaves_every_column_as_it_was(worker: OrderBatcher) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    await worker.pay(merchant, "p", 1_000, settle="later")
    await worker.done("settlement", merchant=merchant, order_no="s", amount=500)
    before = await worker.payment_row("p")
    assert (before["settled"], before["fee_settled"]) == (500, 5)
    await worker.accounts.freeze(f"merchant:{merchant}:pending")
    members = {"merchant": merchant, "payment_order_no": "p", "amount": 700}
    refused = await worker.done("refund", order_no="r", **members)
    assert (refused.state, refused.from_pending, refused.fee_waived, refused.fee) == (State.REFUSED, 500, 5, 2)
    assert await worker.payment_row("p") == before
    await worker.accounts.unfreeze(f"merchant:{merchant}:pending")
    again = await worker.done("refund", order_no="r2", **members)
    assert (again.state, again.from_pending, again.fee_waived, again.fee) == (State.POSTED, 500, 5, 2)


async def test_a_refused_reversal_leaves_a_payment_that_can_be_settled_and_refunded(worker: OrderBatcher) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    await worker.pay(merchant, "p", 1_000, settle="later")
    before = await worker.payment_row("p")
    await worker.accounts.freeze(f"merchant:{merchant}:pending")
    members = {"merchant": merchant, "of_kind": "payment", "of_order_no": "p", "reason": "twice"}
    assert (await worker.done("reversal", order_no="v", **members)).state is State.REFUSED
    assert await worker.payment_row("p") == before
    assert await worker.value("SELECT reversed_by FROM fund.orders WHERE order_no = 'p'") is None
    await worker.accounts.unfreeze(f"merchant:{merchant}:pending")
    settled = await worker.done("settlement", merchant=merchant, order_no="s")
    assert (settled.state, settled.amount) == (State.POSTED, 1_000)
    refund = await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=1_000)
    assert (refund.state, refund.fee) == (State.POSTED, 10)


@pytest.mark.parametrize("first", ["lost", "heard"])
async def test_a_bounce_on_a_later_day_is_not_counted_on_the_day_of_the_withdrawal(
    worker: OrderBatcher, first: str
) -> None:
    """A bank may return money days later. That must not increase today's limit."""
    merchant = await worker.merchant(withdrawal_limit=100)
    await worker.pay(merchant, "p", 1_000)
    old = await worker.yesterday(merchant, "w1", 60)
    await worker.withdraw(merchant, "w2", 70)
    (yesterday, before), (today, counted) = await worker.days()
    assert (before, counted) == (60, 70)
    assert yesterday == old.created_at.date() < today
    worker.accounts.lost = first == "lost"
    worker.batcher._wait_s = 0.1 if worker.accounts.lost else 5.0
    assert isinstance(await worker.batcher.end(old.id, "bounced", None, "no such account", "m"), Taken)
    worker.accounts.lost = False
    await worker.recover()
    assert await worker.state(old) == "bounced"
    assert await worker.days() == [(yesterday, 0), (today, 70)]


async def test_a_refusal_that_is_known_after_midnight_is_not_counted_on_the_day_of_the_withdrawal(
    worker: OrderBatcher,
) -> None:
    merchant = await worker.merchant(withdrawal_limit=100)
    await worker.pay(merchant, "p", 50)
    worker.accounts.lost, worker.batcher._wait_s = True, 0.1
    old = await worker.yesterday(merchant, "w1", 60)
    assert old.state is State.POSTING
    worker.accounts.lost, worker.batcher._wait_s = False, 5.0
    await worker.withdraw(merchant, "w2", 40)
    (yesterday, before), (today, counted) = await worker.days()
    assert (before, counted) == (60, 40)
    await worker.recover()
    assert await worker.state(old) == "refused"
    assert await worker.days() == [(yesterday, 0), (today, 40)]


@pytest.mark.parametrize("kind", ["payment", "withdrawal"])
async def test_one_item_of_a_batch_with_status_503_is_no_refusal(
    worker: OrderBatcher, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant(withdrawal_limit=1_000)
    await worker.pay(merchant, "p", 100)
    sure = worker.accounts.post_vouchers

    async def unsure(vouchers: Sequence[Voucher], atomic: bool = False) -> list[VoucherResult]:
        worker.accounts.unsure_of = vouchers[0].reference
        return await sure(vouchers, atomic)

    worker.batcher._wait_s = 0.2
    with monkeypatch.context() as unlucky:
        unlucky.setattr(worker.accounts, "post_vouchers", unsure)
        order = await (worker.pay(merchant, "x", 10) if kind == "payment" else worker.withdraw(merchant, "x", 10))
        assert order.state is State.POSTING
        assert await worker.state(order) == "posting", "its voucher is posted"
    worker.accounts.unsure_of = None
    await worker.recover()
    assert await worker.state(order) == "posted"
    assert await worker.of(merchant) == ((110 if kind == "payment" else 90), 0, 0)


async def test_a_chargeback_is_owed_in_full_when_the_balance_falls_before_each_attempt(worker: OrderBatcher) -> None:
    """A chargeback cannot end as refused, because the bank has already taken the money."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    look, attempts = worker.accounts.account, []

    async def spends(id_: str) -> Account | None:
        """Debit a part of the merchant's balance after each read of the balance."""
        account = await look(id_)
        attempts.append(len(attempts))
        await worker.debit(merchant, f"a{len(attempts)}", 10)
        return account

    worker.accounts.account = spends  # type: ignore[method-assign]
    order = await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=100)
    worker.accounts.account = look  # type: ignore[method-assign]
    assert attempts == list(range(ATTEMPTS_MAX)), "the last attempt looks nothing up"
    assert (order.state, order.attempt, order.to_receivable) == (State.POSTED, ATTEMPTS_MAX, 100)
    assert await worker.of(merchant) == (100 - 10 * ATTEMPTS_MAX, 0, 100)
    assert (await worker.payment_row("p"))["charged_back"] == 100


async def test_an_order_takes_its_time_from_the_clock_of_the_order_batcher(worker: OrderBatcher) -> None:
    merchant = await worker.merchant()
    worker.days_back = 3
    at: datetime = (await worker.pay(merchant, "p", 1)).created_at
    assert (datetime.now(at.tzinfo) - at).days == 3
    stored = await worker.value("SELECT created_at FROM fund.orders WHERE kind = $1", Kind.PAYMENT)
    assert stored == at
