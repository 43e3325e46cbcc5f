"""Approvals under concurrency, and the expiry of orders that wait: an order that does not match its MAC hides no other."""

import asyncio
from datetime import timedelta

import pytest

from fundledger.fund import approvals
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import State
from fundledger.fund.model.transitions import APPROVE_WITHIN
from fundledger.fund.store.orders import read_order
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.running import RunningService


async def test_of_two_concurrent_approvals_of_a_reversal_one_is_a_replay(worker: FundWorker) -> None:
    """Both read the order before the other one reserves. The second must not be refused for the first."""
    merchant = await worker.merchant()
    for turn in range(5):
        await worker.pay(merchant, f"p{turn}", 100)
        members = {"merchant": merchant, "of_kind": "payment", "of_order_no": f"p{turn}", "reason": "r"}
        asked = await worker.requested("reversal", order_no=f"v{turn}", **members)
        answers = await asyncio.gather(*(worker.batcher.approve(asked.id, CHECKER) for _ in range(4)))
        assert all(isinstance(answer, Taken) for answer in answers), answers
        assert await worker.of(merchant) == (0, 0, 0)


async def test_an_approved_order_is_as_old_as_its_approval(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    members = {"merchant": merchant, "order_no": "a", "amount": 5, "direction": "credit", "reason": "r"}
    worker.days_back = 6
    order = await worker.requested("adjustment", **members)
    worker.days_back = 0
    assert isinstance(await worker.batcher.approve(order.id, CHECKER), Taken)
    age = await worker.value("SELECT now() - step_asked_at FROM fund.orders WHERE id = $1", order.id)
    assert age < timedelta(days=1)


async def test_orders_that_do_not_match_their_macs_hide_no_other_from_expiry(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "EXPIRED_AT_ONCE", 1)
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant()
        worker.days_back = APPROVE_WITHIN.days + 1
        members = {"merchant": merchant, "amount": 5, "direction": "credit", "reason": "r"}
        orders = [await worker.requested("adjustment", order_no=number, **members) for number in ("1", "2", "3")]
        await worker.value("UPDATE fund.orders SET reason = 'edited' WHERE order_no IN ('1', '2')")
        worker.days_back = 0
        expired, lag_s = await worker.batcher.expire_some()
        assert expired == 1
        assert lag_s > 0, "the other two should have expired"
        found = [await read_order(worker.pool, order.id) for order in orders]
        assert [order.state for order in found if order] == [State.CREATED, State.CREATED, State.EXPIRED]
