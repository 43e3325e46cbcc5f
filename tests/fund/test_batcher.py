"""The order batcher on a real account service: vouchers, replays and refusals of every kind of order."""

import asyncio
from typing import Any

import pytest

from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.flows import net_of
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee, MerchantRequest
from fundledger.fund.store import orders
from fundledger.fund.store.queries import SQL
from tests.support.fund_ids import order_id
from tests.support.fund_worker import FundWorker
from tests.support.plans import nodes, plan_of
from tests.support.running import RunningService

FEE = Fee(basis_points=60)


async def test_a_payment_moves_money_once_however_often_it_is_asked_for(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=FEE)
    members = {
        "merchant": merchant,
        "order_no": "1",
        "amount": 10_000,
        "currency": "CNY",
        "channel": f"c-{worker.salt}",
    }
    first = await worker.ask("payment", **members)
    assert isinstance(first, Taken)
    assert not first.replay
    assert (first.order.state, first.order.fee, net_of(first.order)) == (State.POSTED, 60, 9_940)
    again = await worker.ask("payment", **members)
    assert isinstance(again, Taken)
    assert again.replay
    assert again.order == first.order
    at_once = await asyncio.gather(*(worker.ask("payment", **{**members, "order_no": "2"}) for _ in range(20)))
    assert sorted(answer.replay for answer in at_once) == [False] + [True] * 19
    assert await worker.of(merchant) == (2 * 9_940, 0, 0)
    other = await worker.ask("payment", **{**members, "amount": 10_001})
    assert isinstance(other, Refusal)
    assert other.code is Code.ORDER_NO_REUSED
    assert await worker.of(merchant) == (2 * 9_940, 0, 0)


async def test_many_payments_are_written_and_posted_together(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "first", 1)
    before = worker.posting.counted.batches
    done = await asyncio.gather(*(worker.pay(merchant, str(i), 10) for i in range(300)))
    assert {order.state for order in done} == {State.POSTED}
    assert worker.posting.counted.batches - before < 30
    assert await worker.of(merchant) == (3_001, 0, 0)
    assert await worker.value("SELECT count(*) FROM fund.events") == 301
    listed = await orders.list_orders(worker.pool, Kind.PAYMENT, merchant, None, 0, 1000)
    assert len(listed) == 301
    assert [order.seq for order in listed] == sorted(order.seq for order in listed)


REFUSED_BEFORE: list[tuple[str, str, dict[str, Any]]] = [
    ("payment", "merchant-not-found", {"merchant": "nobody", "amount": 5, "currency": "CNY", "channel": "c"}),
    ("payment", "merchant-not-found", {"merchant": "platform", "amount": 5, "currency": "CNY", "channel": "c"}),
    ("payment", "currency-mismatch", {"amount": 5, "currency": "USD", "channel": "c"}),
    ("refund", "payment-not-found", {"amount": 5, "payment_order_no": "none"}),
    ("refund", "payment-not-found", {"amount": 5, "payment_order_no": "foreign"}),
    ("refund", "refund-exceeds-payment", {"amount": 1_001, "payment_order_no": "paid"}),
    ("chargeback", "payment-not-found", {"amount": 5, "payment_order_no": "foreign"}),
    ("chargeback", "chargeback-exceeds-payment", {"amount": 1_001, "payment_order_no": "paid"}),
    ("settlement", "nothing-to-settle", {}),
    ("withdrawal", "withdrawal-limit-exceeded", {"amount": 801, "channel": "c"}),
    ("reversal", "order-not-found", {"of_kind": "payment", "of_order_no": "none", "reason": "r"}),
]


@pytest.mark.parametrize(("kind", "code", "members"), REFUSED_BEFORE, ids=lambda value: str(value)[:40])
async def test_what_cannot_be_is_refused_and_keeps_nothing(
    worker: FundWorker, kind: str, code: str, members: dict[str, Any]
) -> None:
    merchant, other = await worker.merchant(withdrawal_limit=800), await worker.merchant("other")
    await worker.pay(merchant, "paid", 1_000)
    await worker.pay(other, "foreign", 1_000)
    answer = await worker.ask(kind, **{"merchant": merchant, "order_no": "x", **members})
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert await worker.of(merchant) == (1_000, 0, 0)
    assert await worker.value("SELECT count(*) FROM fund.orders") == 2
    assert await worker.value("SELECT coalesce(sum(amount), 0) FROM fund.withdrawal_days") == 0


async def test_an_order_that_the_account_service_refuses_stays_refused_and_releases_its_reservations(
    worker: FundWorker,
) -> None:
    merchant = await worker.merchant(withdrawal_limit=5_000)
    await worker.pay(merchant, "1", 1_000)
    members = {"merchant": merchant, "order_no": "w", "amount": 1_001, "channel": f"c-{worker.salt}"}
    refused = await worker.done("withdrawal", **members)
    assert refused.state is State.REFUSED
    assert b"insufficient-funds" in (refused.problem or b"")
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == 0
    await worker.pay(merchant, "2", 1_000)
    again = await worker.ask("withdrawal", **members)
    assert isinstance(again, Taken)
    assert (again.replay, again.order.state) == (True, State.REFUSED)
    taken = await worker.done("withdrawal", merchant=merchant, order_no="w2", amount=1_500, channel=f"c-{worker.salt}")
    assert taken.state is State.POSTED
    refund = await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="1", amount=1_000)
    assert refund.state is State.REFUSED
    assert await worker.value("SELECT refunded FROM fund.payments") == 0
    assert await worker.of(merchant) == (500, 0, 0)


async def test_a_refund_returns_the_fee_in_the_same_part_and_never_more(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=Fee(fixed=100))
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "more", 1_000)
    fees = []
    for i, amount in enumerate((333, 333, 334)):
        order = await worker.done("refund", merchant=merchant, order_no=f"r{i}", payment_order_no="p", amount=amount)
        assert order.state is State.POSTED
        fees.append(order.fee)
    assert sum(fees) == 100
    assert await worker.of(merchant) == (900, 0, 0)
    more = await worker.ask("refund", merchant=merchant, order_no="r9", payment_order_no="p", amount=1)
    assert isinstance(more, Refusal)
    assert more.code is Code.REFUND_EXCEEDS_PAYMENT


async def test_of_a_hundred_concurrent_refunds_no_more_than_the_payment_is_returned(
    worker: FundWorker, service: RunningService
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "more", 100_000)
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as second:
        for n in range(5):
            await worker.pay(merchant, f"p{n}", 1_010)
            # This refund inserts the row with the sums of the payment. Later orders then do not wait for its insertion.
            await worker.done("refund", merchant=merchant, order_no=f"r{n}", payment_order_no=f"p{n}", amount=10)
            asked = [
                [worker, second][i % 2].ask(
                    "refund", merchant=merchant, order_no=f"r{n}-{i}", payment_order_no=f"p{n}", amount=30
                )
                for i in range(100)
            ]
            answers = await asyncio.gather(*asked)
            posted = [a for a in answers if isinstance(a, Taken) and a.order.state is State.POSTED]
            assert len(posted) == 33
            assert {a.code for a in answers if isinstance(a, Refusal)} == {Code.REFUND_EXCEEDS_PAYMENT}
            # The constraint would also prevent the orders, but without a refusal that states the reason.
            assert all(isinstance(a, Taken | Refusal) for a in answers)
    assert await worker.of(merchant) == (100_000 + 5 * 10, 0, 0)
    assert await worker.value("SELECT max(refunded) FROM fund.payments") == 1_000


async def test_a_payment_that_is_settled_later_is_pending_until_then(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    for i in range(3):
        await worker.pay(merchant, str(i), 1_000, settle="later")
    assert await worker.of(merchant) == (0, 3_000, 0)
    first = await worker.done("settlement", merchant=merchant, order_no="s1", amount=1_500)
    assert (first.amount, first.fee) == (1_500, 15)
    assert await worker.of(merchant) == (1_485, 1_500, 0)
    too_much = await worker.ask("settlement", merchant=merchant, order_no="s2", amount=1_501)
    assert isinstance(too_much, Refusal)
    assert too_much.code is Code.SETTLEMENT_EXCEEDS_PENDING
    # Half of the second payment is settled. A refund first takes the pending half, of which the fee is waived.
    refund = await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="1", amount=700)
    assert (refund.from_pending, refund.fee_waived, refund.fee) == (500, 5, 2)
    assert await worker.of(merchant) == (1_485 - 198, 1_000, 0)
    rest = await worker.done("settlement", merchant=merchant, order_no="s3")
    assert (rest.amount, rest.fee) == (1_000, 10)
    again = await worker.ask("settlement", merchant=merchant, order_no="s3")
    assert isinstance(again, Taken)
    assert again.replay
    assert await worker.of(merchant) == (1_485 - 198 + 990, 0, 0)


async def test_a_withdrawal_is_paid_or_bounces_but_never_both(worker: FundWorker) -> None:
    merchant = await worker.merchant(withdrawal_fee=Fee(fixed=10), withdrawal_limit=1_000)
    await worker.pay(merchant, "1", 2_000)
    channel = f"c-{worker.salt}"
    paid = await worker.done("withdrawal", merchant=merchant, order_no="a", amount=500, channel=channel)
    bounced = await worker.done("withdrawal", merchant=merchant, order_no="b", amount=500, channel=channel)
    assert (net_of(paid), await worker.of(merchant)) == (-510, (980, 0, 0))
    both = await asyncio.gather(
        *(worker.batcher.end(paid.id, ending, None, None, "m") for ending in ("paid", "bounced") * 5)
    )
    taken = [answer for answer in both if isinstance(answer, Taken)]
    assert len(taken) == 5
    first = await worker.batcher.end(bounced.id, "bounced", None, "closed", "m")
    assert isinstance(first, Taken)
    assert first.order.state is State.BOUNCED
    repeat = await worker.batcher.end(bounced.id, "bounced", None, None, "m")
    assert isinstance(repeat, Taken)
    assert (repeat.replay, repeat.order.reason) == (True, "closed")
    contrary = await worker.batcher.end(bounced.id, "paid", "x", None, "m")
    assert isinstance(contrary, Refusal)
    assert contrary.code is Code.WITHDRAWAL_BOUNCED
    first_ending = (await orders.read_order(worker.pool, paid.id)).state  # type: ignore[union-attr]
    assert await worker.of(merchant) == ((1_490 if first_ending is State.PAID else 2_000), 0, 0)
    assert [s.state for s in await orders.history(worker.pool, bounced)] == ["created", "posting", "posted", "bounced"]
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == (500 if first_ending is State.PAID else 0)


async def test_a_merchant_owes_the_part_of_a_chargeback_that_its_balance_does_not_cover(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=700, channel=f"c-{worker.salt}")
    order = await worker.done("chargeback", merchant=merchant, order_no="x", payment_order_no="p", amount=900)
    assert (order.state, order.to_receivable) == (State.POSTED, 600)
    assert await worker.of(merchant) == (0, 0, 600)
    await worker.pay(merchant, "p2", 500)
    assert await worker.of(merchant) == (0, 0, 100)
    over = await worker.done("recovery", merchant=merchant, order_no="v", amount=100)
    assert over.state is State.REFUSED
    assert (
        await worker.done("write_off", merchant=merchant, order_no="o", amount=100, reason="gone")
    ).state == "posted"
    assert await worker.of(merchant) == (0, 0, 0)


async def test_concurrent_chargebacks_never_take_more_than_the_balance(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    for i in range(10):
        await worker.pay(merchant, f"p{i}", 100)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=650, channel=f"c-{worker.salt}")
    done = await asyncio.gather(
        *(
            worker.done("chargeback", merchant=merchant, order_no=f"x{i}", payment_order_no=f"p{i}", amount=100)
            for i in range(10)
        )
    )
    assert {order.state for order in done} == {State.POSTED}
    available, _, owed = await worker.of(merchant)
    assert owed - available == 650
    assert available >= 0


async def test_an_adjustment_is_posted_when_another_one_approves(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    members = {"merchant": merchant, "order_no": "a", "amount": 70, "direction": "credit", "reason": "lost"}
    order = await worker.requested("adjustment", **members, person="ann")
    await worker.persons("bob", "eve")
    same = await worker.batcher.approve(order.id, "tester/ann")
    assert isinstance(same, Refusal)
    assert same.code is Code.APPROVAL_NEEDS_ANOTHER
    assert await worker.of(merchant) == (0, 0, 0)
    approved = await asyncio.gather(
        *(worker.batcher.approve(order.id, f"person:{who}") for who in ("bob", "eve", "bob"))
    )
    assert all(isinstance(answer, Taken) for answer in approved)
    assert await worker.of(merchant) == (70, 0, 0)


@pytest.mark.parametrize(
    ("person", "approver", "enough"),
    [
        (None, "tester", False),
        (None, "tester/bob", False),
        ("ann", "tester", False),
        ("ann", "tester/ann", False),
        ("ann", "tester/bob", False),
        (None, "others", True),
        ("ann", "others/ann", True),
        ("ann", "person:ann", True),
    ],
)
async def test_an_approval_needs_another_identity_and_the_person_in_a_body_decides_nothing(
    worker: FundWorker, person: str | None, approver: str, *, enough: bool
) -> None:
    merchant = await worker.merchant()
    members = {"merchant": merchant, "order_no": "a", "amount": 70, "direction": "credit", "reason": "lost"}
    await worker.persons("ann")
    order = await worker.requested("adjustment", **members, person=person)
    answer = await worker.batcher.approve(order.id, approver)
    if enough:
        assert isinstance(answer, Taken)
    else:
        assert isinstance(answer, Refusal)
        assert answer.code is Code.APPROVAL_NEEDS_ANOTHER
    assert await worker.of(merchant) == (70 if enough else 0, 0, 0)


async def test_a_payment_is_reversed_once_and_not_when_a_part_came_back(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=FEE)
    for name in ("p", "q", "l"):
        await worker.pay(merchant, name, 1_000, settle="later" if name == "l" else "now")
    members = {"merchant": merchant, "of_kind": "payment", "reason": "twice"}
    both = await asyncio.gather(
        worker.ask("reversal", **members, order_no="v", of_order_no="p"),
        worker.ask("reversal", **members, order_no="v2", of_order_no="p"),
        worker.ask("reversal", **members, order_no="v3", of_order_no="l"),
    )
    assert [answer.code for answer in both if isinstance(answer, Refusal)] == [Code.ORDER_ALREADY_REVERSED]
    assert await worker.of(merchant) == (994, 0, 0)
    refund = await worker.ask("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=1)
    assert isinstance(refund, Refusal)
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="q", amount=1)
    late = await worker.ask("reversal", **members, order_no="v4", of_order_no="q")
    assert isinstance(late, Refusal)
    assert late.code is Code.ORDER_NOT_REVERSIBLE
    nothing = await worker.ask("settlement", merchant=merchant, order_no="s")
    assert isinstance(nothing, Refusal)


async def test_the_platforms_own_orders_are_posted(worker: FundWorker) -> None:
    before = await worker.balance("suspense:over")
    channel = f"c-{worker.salt}"
    cost = await worker.done("channel_cost", channel=channel, order_no=worker.salt, amount=7, currency="CNY")
    more = await worker.done(
        "bank_difference", channel=channel, order_no=worker.salt, amount=5, currency="CNY", direction="more", reason="?"
    )
    assert (cost.state, more.state, cost.merchant) == (State.POSTED, State.POSTED, "platform")
    assert await worker.balance(f"bank:{channel}") == -2
    assert await worker.balance("suspense:over") - before == 5
    assert cost.id == order_id("channel_cost", "platform", worker.salt)


async def test_a_days_limit_holds_though_the_merchant_is_forgotten_while_a_withdrawal_waits(worker: FundWorker) -> None:
    merchant = await worker.merchant(withdrawal_limit=10)
    await worker.pay(merchant, "p", 1000)
    members = {"merchant": merchant, "order_no": "w", "amount": 11, "channel": f"c-{worker.salt}"}
    asked = asyncio.ensure_future(worker.ask("withdrawal", **members))
    await asyncio.sleep(0)  # accepted, and not reserved yet
    worker.merchants._known.clear()  # as after a change of the merchant's fee
    answer = await asked
    assert isinstance(answer, Refusal)
    assert answer.code is Code.WITHDRAWAL_LIMIT_EXCEEDED


async def test_a_withdrawal_that_is_more_than_can_be_posted_with_its_fee_is_refused(worker: FundWorker) -> None:
    merchant = await worker.merchant(withdrawal_fee=Fee(fixed=1))
    await worker.pay(merchant, "p", 1000)
    members = {"merchant": merchant, "order_no": "w", "channel": f"c-{worker.salt}"}
    answer = await worker.ask("withdrawal", amount=2**53 - 1, **members)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.field) == (Code.WITHDRAWAL_LIMIT_EXCEEDED, "amount")
    assert (await worker.done("withdrawal", amount=2**53 - 2, **members)).state is State.REFUSED


@pytest.mark.parametrize("state", ["refused", "posted"])
async def test_orders_in_a_state_are_listed(worker: FundWorker, state: str) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    for amount in (90, 200, 10, 300):
        await worker.ask(
            "withdrawal", merchant=merchant, order_no=str(amount), amount=amount, channel=f"c-{worker.salt}"
        )
    found = await orders.list_orders(worker.pool, Kind.WITHDRAWAL, merchant, State(state), 0, 10)
    assert [order.order_no for order in found] == (["200", "300"] if state == "refused" else ["90", "10"])
    rest = await orders.list_orders(worker.pool, Kind.WITHDRAWAL, merchant, State(state), found[0].seq, 10)
    assert [order.order_no for order in rest] == [found[1].order_no]


async def test_orders_in_a_state_in_which_few_are_are_found_by_their_index(worker: FundWorker) -> None:
    async with worker.pool.acquire() as connection:
        plan = await plan_of(connection, SQL["list_orders_in_state"], like_a_lane=False)
    assert {node.get("Index Name") for node in nodes(plan)} - {None} == {"orders_in_state"}


async def test_a_merchant_whose_accounts_another_module_opened_is_refused(worker: FundWorker) -> None:
    id_ = f"taken-{worker.salt}"
    await worker.accounts.open_account(f"merchant:{id_}:available", f"merchant:{id_}", "merchant_available", "USD")
    answer = await worker.merchants.create(MerchantRequest(id=id_, name="n", currency="CNY"), "tester")
    assert isinstance(answer, Refusal)
    assert answer.code is Code.MERCHANT_EXISTS
    assert await worker.merchants.read(id_) is None


async def test_of_two_concurrent_orders_with_one_number_the_second_may_retry_when_the_first_one_was_refused(
    worker: FundWorker,
) -> None:
    merchant = await worker.merchant(withdrawal_limit=50)
    await worker.pay(merchant, "p", 100)
    members = {"merchant": merchant, "order_no": "w", "channel": f"c-{worker.salt}"}
    first, second = await asyncio.gather(*(worker.ask("withdrawal", **members, amount=amount) for amount in (60, 40)))
    assert isinstance(first, Refusal)
    assert isinstance(second, OrderFault)
    assert second.undone
    taken = await worker.ask("withdrawal", **members, amount=40)
    assert isinstance(taken, Taken)
    assert not taken.replay
    other, same = await asyncio.gather(*(worker.ask("withdrawal", **members, amount=amount) for amount in (60, 40)))
    assert isinstance(other, Refusal)
    assert other.code is Code.ORDER_NO_REUSED
    assert isinstance(same, OrderFault), "there is such an order, which it hears when it asks again"
