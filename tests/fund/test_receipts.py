"""A reference of a channel counts once in each direction: over merchants, kinds of orders and concurrent requests."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg

from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import RECEIPTS, Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from tests.fund.bank import Scripted
from tests.support.fund_worker import FundWorker
from tests.support.length import unless_long
from tests.support.running import RunningService

PACE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)
THREADS = 32
ROUNDS = unless_long(15, 2_000)


def booked(answer: Taken | Refusal | OrderFault, by: Order) -> bool:
    """Return whether an answer is the refusal that names this order."""
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    return f"{by.kind} {by.order_no} of {by.merchant} ({by.id})" in answer.detail


async def test_a_receipt_is_credited_once_over_numbers_and_merchants(worker: FundWorker) -> None:
    one, two = await worker.merchant("one"), await worker.merchant("two")
    first = await worker.pay(one, "1", 100, channel_ref="R1")
    again = {"amount": 100, "currency": "CNY", "channel": f"c-{worker.salt}", "channel_ref": "R1"}
    assert booked(await worker.ask("payment", merchant=one, order_no="2", **again), first)
    assert booked(await worker.ask("payment", merchant=two, order_no="1", **again), first)
    assert booked(await worker.ask("payment", merchant=two, order_no="1", settle="later", **again), first)
    replay = await worker.ask("payment", merchant=one, order_no="1", **again)
    assert isinstance(replay, Taken)
    assert replay.replay
    assert await worker.of(one) == (100, 0, 0)
    assert await worker.of(two) == (0, 0, 0)
    # The refused numbers are free, another channel has its own references, and none is needed.
    await worker.pay(two, "1", 5, channel_ref="R2")
    await worker.pay(two, "2", 5, channel=f"d-{worker.salt}", channel_ref="R1")
    await asyncio.gather(*(worker.pay(two, str(n), 5) for n in (3, 4)))


async def test_the_other_payments_of_a_batch_are_posted(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "warm", 1)
    members = {"currency": "CNY", "channel": f"c-{worker.salt}", "merchant": merchant, "amount": 1}
    asked = [worker.ask("payment", order_no=str(n), channel_ref=f"R{n // 2}", **members) for n in range(40)]
    answers = await asyncio.gather(*asked)
    taken = [answer.order for answer in answers if isinstance(answer, Taken)]
    assert Counter(order.channel_ref for order in taken) == {f"R{n}": 1 for n in range(20)}
    assert {order.state for order in taken} == {State.POSTED}
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} == {Code.RECEIPT_ALREADY_BOOKED}
    assert await worker.of(merchant) == (21, 0, 0)


async def test_of_concurrent_requests_of_several_workers_one_is_credited(
    worker: FundWorker, service: RunningService
) -> None:
    merchants = [await worker.merchant(f"m{n}") for n in range(4)]
    other = FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt)
    async with other:
        for each in (worker, other):
            await each.pay(merchants[0], f"warm {id(each)}".replace(" ", "-"), 1)
        for turn in range(ROUNDS):
            members = {"currency": "CNY", "channel": f"c-{worker.salt}", "amount": 7, "channel_ref": f"R{turn}"}
            asked = [
                (worker, other)[n % 2].ask(
                    "payment",
                    merchant=merchants[n % 4],
                    order_no=f"{turn}-{n}",
                    settle=("now", "later")[n % 3 == 0],
                    **members,
                )
                for n in range(THREADS)
            ]
            answers = await asyncio.gather(*asked)
            (order,) = [answer.order for answer in answers if isinstance(answer, Taken)]
            assert order.state is State.POSTED
            assert all(booked(answer, order) for answer in answers if not isinstance(answer, Taken))
    assert sum([sum(await worker.of(merchant)) for merchant in merchants]) == 7 * ROUNDS + 2


async def test_a_reference_counts_for_each_direction(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000, channel_ref="R")
    back = {"merchant": merchant, "payment_order_no": "p", "amount": 10}
    first = await worker.done("chargeback", order_no="c1", channel_ref="R", **back)
    assert booked(await worker.ask("chargeback", order_no="c2", channel_ref="R", **back), first)
    out = [
        await worker.done("withdrawal", merchant=merchant, order_no=n, amount=5, channel=f"c-{worker.salt}")
        for n in ("w1", "w2")
    ]
    assert booked(await worker.batcher.end(out[0].id, "paid", "R", None, "bank"), first)
    assert await worker.value("SELECT state FROM fund.orders WHERE id = $1", out[0].id) == "posted"
    paid = await worker.batcher.end(out[0].id, "paid", "R2", None, "bank")
    assert isinstance(paid, Taken)
    assert booked(await worker.batcher.end(out[1].id, "paid", "R2", None, "bank"), paid.order)
    assert isinstance(await worker.batcher.end(out[1].id, "bounced", None, "closed", "bank"), Taken)


async def test_two_chargebacks_of_one_batch_cannot_share_a_reference(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    back = {"merchant": merchant, "payment_order_no": "p", "amount": 10, "channel_ref": "R"}
    answers = await asyncio.gather(*(worker.ask("chargeback", order_no=str(n), **back) for n in range(8)))
    (order,) = [answer.order for answer in answers if isinstance(answer, Taken)]
    assert all(booked(answer, order) for answer in answers if not isinstance(answer, Taken))
    assert await worker.of(merchant) == (990, 0, 0)


async def test_paid_keeps_its_reference(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=5, channel=f"c-{worker.salt}")

    async def paid(ref: str | None) -> Any:
        return await worker.batcher.end(order.id, "paid", ref, None, "bank")

    assert isinstance(await paid("A"), Taken)
    other = await paid("B")
    assert isinstance(other, Refusal)
    assert (other.code, other.field) == (Code.WITHDRAWAL_PAID, "channel_ref")
    assert "A" in other.detail
    for ref in ("A", None):
        again = await paid(ref)
        assert isinstance(again, Taken)
        assert again.replay
        assert again.order.channel_ref == "A"


async def test_the_reference_of_a_reversed_payment_is_free(worker: FundWorker) -> None:
    one, two = await worker.merchant("one"), await worker.merchant("two")
    await worker.pay(one, "p", 100, channel_ref="R")
    await worker.done("reversal", merchant=one, order_no="v", of_kind="payment", of_order_no="p", reason="wrong shop")
    right = await worker.pay(two, "p", 100, channel_ref="R")
    members = {"amount": 100, "currency": "CNY", "channel": f"c-{worker.salt}", "channel_ref": "R"}
    assert booked(await worker.ask("payment", merchant=one, order_no="q", **members), right)
    assert await worker.of(one) == (0, 0, 0)
    assert await worker.of(two) == (100, 0, 0)


async def test_a_payout_whose_reference_is_booked_is_paid_and_is_a_finding(worker: FundWorker) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 100)
    members = {"merchant": merchant, "amount": 5, "channel": channel}
    first, second = [await worker.done("withdrawal", order_no=number, **members) for number in ("1", "2")]
    assert isinstance(await worker.batcher.end(first.id, "paid", f"REF-{str(second.id)[:8]}", None, "bank"), Taken)
    await Payouts(worker.pool, worker.batcher, {channel: Scripted(Standing.PAID)}, PACE).pay_out_some()
    row = await worker.pool.fetchrow("SELECT state, channel_ref FROM fund.orders WHERE id = $1", second.id)
    assert tuple(row) == ("paid", None)
    assert await worker.value("SELECT says FROM fund.channel_findings WHERE order_id = $1", second.id) == "paid"
    assert await worker.value("SELECT outcome FROM fund.payouts WHERE order_id = $1", second.id) == "paid"


async def test_the_database_and_the_code_agree_on_directions(fund_pool: "asyncpg.Pool[Any]") -> None:
    found = {kind: await fund_pool.fetchval("SELECT fund.receipt($1, 'posted', false)", str(kind)) for kind in Kind}
    assert found == {kind: RECEIPTS.get(kind) for kind in Kind}
    assert await fund_pool.fetchval("SELECT fund.receipt('payment', 'refused', false)") is None
    assert await fund_pool.fetchval("SELECT fund.receipt('payment', 'posted', true)") is None
