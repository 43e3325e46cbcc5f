"""The client of the fund service against the running platform."""

import re
import uuid
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fundledger.client import (
    Change,
    Fee,
    FeeRule,
    FundService,
    Holiday,
    Merchant,
    OrderRefused,
    Payment,
    Refused,
    Unauthorized,
)
from fundledger.client.faults import QuotaExceeded
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "client.md"
CHANNEL = "simulator"


@pytest.fixture
async def fund(platform: Any) -> AsyncIterator[FundService]:
    async with FundService(platform.fund_url, platform.token) as fund:
        yield fund


@pytest.fixture
async def checker(platform: Any) -> AsyncIterator[FundService]:
    """Return a client with the token of the person dev-checker."""
    token = (platform.data_dir / "dev-checker-token").read_text().strip()
    async with FundService(platform.fund_url, token) as fund:
        yield fund


@pytest.fixture
async def merchant(fund: FundService) -> str:
    """Create a merchant with a balance of 9,900, by the payment `p` of 10,000 with a fee of 1 percent."""
    name = f"c{uuid.uuid4().hex}"
    await fund.create_merchant(name, "A shop", "CNY", fee=Fee(basis_points=100))
    order = await fund.wait_until_settled(await fund.pay(name, "p", 10_000, "CNY", CHANNEL))
    assert (order.state, order.fee, order.net) == ("posted", 100, 9_900)
    return name


async def test_a_merchant_is_created_once_read_and_listed(fund: FundService, merchant: str) -> None:
    again = await fund.create_merchant(merchant, "A shop", "CNY", fee=Fee(basis_points=100))
    assert again.replay
    with pytest.raises(Refused) as refused:
        await fund.create_merchant(merchant, "Another", "CNY")
    assert refused.value.problem.code == "merchant-exists"
    found = await fund.merchant(merchant)
    assert found is not None
    assert f"merchant:{merchant}:available" in found.accounts
    assert await fund.merchant("nobody") is None
    assert merchant in [each.id async for each in fund.merchants()]
    assert found.settlement == "manual"
    monthly = await fund.create_merchant(f"{merchant}-m", "A shop", "CNY", settlement="monthly")
    assert monthly.settlement == "monthly"


async def rules_of(fund: FundService, merchant: str) -> int:
    found = await fund.merchant(merchant)
    assert found is not None
    return len(found.fees)


async def test_a_fee_rule_exists_after_another_identity_has_approved_it(
    fund: FundService, checker: FundService, merchant: str
) -> None:
    change = await fund.add_fee_rule(merchant, FeeRule(product="payment", basis_points=200))
    assert (change.kind, change.state, await rules_of(fund, merchant)) == ("fee_rule", "waiting", 1)
    with pytest.raises(Refused) as refused:
        await fund.approve_change(change.id)
    assert refused.value.problem.code == "approval-needs-another"
    assert (await checker.approve_change(change.id)).state == "applied"
    assert await rules_of(fund, merchant) == 2


async def test_a_merchant_changes_and_its_history_says_who_and_why(
    fund: FundService, checker: FundService, merchant: str
) -> None:
    alone = await fund.change_merchant(merchant, settlement="daily", settlement_days=1, why="contract 7")
    assert isinstance(alone, Merchant)
    assert (alone.settlement, alone.settlement_days) == ("daily", 1)
    waits = await fund.change_merchant(merchant, withdrawal_limit=5_000)
    assert isinstance(waits, Change)
    await checker.approve_change(waits.id)
    assert (await checker.suspend_merchant(merchant, "case 17")).state == "suspended"
    with pytest.raises(Refused) as refused:
        await fund.withdraw(merchant, "w", 5, CHANNEL)
    assert refused.value.problem.code == "merchant-suspended"
    assert (await checker.resume_merchant(merchant, "case 17 is closed")).state == "open"
    told = [event async for event in fund.merchant_history(merchant, limit=2)]
    assert [event.what for event in told] == ["created", "changed", "changed", "suspended", "resumed"]
    assert told[1].changes == {
        "settlement": {"from": "manual", "to": "daily"},
        "settlement_days": {"from": None, "to": 1},
    }
    assert (told[1].why, told[1].approved_by, told[2].change) == ("contract 7", None, waits.id)
    assert (told[2].approved_by, told[3].by, told[3].why) == ("person:dev-checker", "person:dev-checker", "case 17")


async def test_all_is_withdrawn_and_the_merchant_is_closed(
    fund: FundService, checker: FundService, merchant: str
) -> None:
    everything = await fund.withdraw(merchant, "all", "all", CHANNEL)
    assert (everything.amount, everything.fee, everything.takes_all) == (9_900, 0, True)
    with pytest.raises(Refused) as refused:
        await fund.withdraw(merchant, "again", "all", CHANNEL)
    assert refused.value.problem.code == "nothing-to-withdraw"
    await fund.pay(merchant, "q", 1_000, "CNY", CHANNEL)
    with pytest.raises(Refused) as refused:
        await checker.close_merchant(merchant, "contract has ended")
    assert refused.value.problem.code == "merchant-not-empty"
    await checker.close_merchant(merchant, "contract has ended", CHANNEL)

    async def is_closed() -> bool:
        found = await fund.merchant(merchant)
        assert found is not None
        return found.state == "closed"

    await eventually(is_closed, "the merchant is closed", 90)
    with pytest.raises(Refused) as refused:
        await fund.withdraw(merchant, "late", 5, CHANNEL)
    assert refused.value.problem.code == "merchant-closed"


async def test_holidays_are_recorded_after_another_identity_has_approved_them(
    fund: FundService, checker: FundService
) -> None:
    region = f"R{uuid.uuid4().hex[:8]}"
    days = [Holiday(date(2026, 10, 1), name="National Day"), Holiday(date(2026, 10, 10), working=True)]
    change = await fund.request_holidays(region, days, "calendar of 2026")
    assert (await fund.holidays(region)).days == []
    await checker.approve_change(change.id)
    found = await fund.holidays(region)
    assert (found.days, found.weekend) == (days, ["sat", "sun"])


async def test_an_order_is_taken_once_found_and_listed(fund: FundService, merchant: str) -> None:
    order = await fund.pay(merchant, "p", 10_000, "CNY", CHANNEL)
    assert order.replay
    assert await fund.order("payment", order.id) == await fund.find_order("payment", merchant, "p")
    assert await fund.find_order("payment", merchant, "q") is None
    assert [each.id async for each in fund.orders("payment", merchant, "posted", limit=1)] == [order.id]
    assert [step.state for step in await fund.history("payment", order.id)][-1] == "posted"
    with pytest.raises(Refused) as refused:
        await fund.pay(merchant, "p", 10_001, "CNY", CHANNEL)
    assert refused.value.problem.code == "order-no-reused"


async def test_payments_are_accepted_in_batches(fund: FundService, merchant: str) -> None:
    payments = [Payment(merchant, f"m{n}", 100, "CNY", CHANNEL) for n in range(20)]
    payments.append(Payment(merchant, "usd", 100, "USD", CHANNEL))
    results = await fund.pay_many(payments)
    assert {result.state for result in results[:-1]} == {"posted"}
    assert results[-1].problem is not None
    assert results[-1].problem.code == "currency-mismatch"


async def test_money_goes_back_and_is_never_more_than_was_paid(fund: FundService, merchant: str) -> None:
    refund = await fund.wait_until_settled(await fund.refund(merchant, "r1", "p", 4_000))
    assert refund.state == "posted"
    back = await fund.wait_until_settled(await fund.charge_back(merchant, "c1", "p", 6_000))
    assert back.state == "posted"
    with pytest.raises(Refused) as refused:
        await fund.refund(merchant, "r2", "p", 1)
    assert refused.value.problem.code == "refund-exceeds-payment"


async def test_what_is_settled_later_is_settled(fund: FundService, merchant: str) -> None:
    await fund.wait_until_settled(await fund.pay(merchant, "later", 1_000, "CNY", CHANNEL, settle="later"))
    settlement = await fund.wait_until_settled(await fund.settle(merchant, "s1"))
    assert (settlement.state, settlement.amount) == ("posted", 1_000)
    with pytest.raises(Refused) as refused:
        await fund.settle(merchant, "s2")
    assert refused.value.problem.code == "nothing-to-settle"


async def test_a_withdrawal_above_the_balance_is_an_order_that_is_refused(fund: FundService, merchant: str) -> None:
    with pytest.raises(OrderRefused) as refused:
        await fund.wait_until_settled(await fund.withdraw(merchant, "w1", 10**9, CHANNEL))
    assert refused.value.problem.code == "insufficient-funds"
    order = await fund.find_order("withdrawal", merchant, "w1")
    assert order is not None
    assert (order.state, order.id) == ("refused", refused.value.order.id)


async def test_a_withdrawal_ends_one_way(fund: FundService, merchant: str) -> None:
    order = await fund.wait_until_settled(await fund.withdraw(merchant, "w1", 1_000, CHANNEL))
    ended = await fund.wait_until_settled(await fund.withdrawal_paid(order.id, "ref"))
    assert ended.state == "paid"
    assert (await fund.withdrawal_paid(order.id, "ref")).state == "paid"
    with pytest.raises(Refused) as refused:
        await fund.withdrawal_bounced(order.id, "why")
    assert refused.value.problem.code == "withdrawal-paid"


async def test_a_refund_ends_one_way_and_can_be_requested_again(fund: FundService, merchant: str) -> None:
    order = await fund.wait_until_settled(await fund.refund(merchant, "r1", "p", 10_000))
    bounced = await fund.refund_bounced(order.id, "the card is closed")
    assert (bounced.state, bounced.reason) == ("bounced", "the card is closed")
    with pytest.raises(Refused) as refused:
        await fund.refund_paid(order.id, "ref")
    assert refused.value.problem.code == "refund-bounced"
    again = await fund.wait_until_settled(await fund.refund(merchant, "r2", "p", 10_000))
    paid = await fund.refund_paid(again.id, f"ref-{merchant}")
    assert (paid.state, paid.channel_ref) == ("paid", f"ref-{merchant}")
    assert (await fund.refund_paid(again.id, f"ref-{merchant}")).replay


async def test_a_payout_returns_in_parts(fund: FundService, checker: FundService, merchant: str) -> None:
    order = await fund.wait_until_settled(await fund.withdraw(merchant, "w1", 1_000, CHANNEL))
    with pytest.raises(Refused) as refused:
        await fund.return_payout(merchant, "b1", "w1", 1_000, f"back-{merchant}")
    assert refused.value.problem.code == "withdrawal-not-paid"
    await fund.withdrawal_paid(order.id, f"out-{merchant}")
    back = await fund.wait_until_settled(await fund.return_payout(merchant, "b1", "w1", 600, f"back-{merchant}"))
    assert (back.state, back.amount, back.fee, back.of_order) == ("posted", 600, 0, order.id)
    found = await fund.order("withdrawal", order.id)
    assert found is not None
    assert (found.state, found.returned) == ("paid", 600)
    with pytest.raises(Refused) as refused:
        await fund.return_payout(merchant, "b2", "w1", 401, f"back-{merchant}-2", fee="returned")
    assert refused.value.problem.code == "return-exceeds-withdrawal"
    undone = await checker.approve(await fund.reverse("u1", "payout_return", "b1", "another payout", merchant))
    assert (await fund.wait_until_settled(undone)).state == "posted"
    found = await fund.order("withdrawal", order.id)
    assert found is not None
    assert found.returned == 0


async def test_an_adjustment_needs_another_person(fund: FundService, checker: FundService, merchant: str) -> None:
    order = await fund.adjust(merchant, "a1", 50, "credit", "why", person="ann")
    assert order.state == "created"
    with pytest.raises(Refused) as refused:
        await fund.approve(order.id, "bob")
    assert refused.value.problem.code == "approval-needs-another"
    assert (await fund.wait_until_settled(await checker.approve(order.id))).state == "posted"
    slip = await fund.adjust(merchant, "a2", 50, "credit", "why")
    assert (await checker.reject(slip, "not signed")).state == "rejected"


async def test_a_debt_is_recovered_and_written_off(fund: FundService, checker: FundService, merchant: str) -> None:
    await fund.wait_until_settled(await fund.refund(merchant, "r1", "p", 5_000))
    await fund.pay(merchant, "q", 10_000, "CNY", CHANNEL)
    for order in (
        await fund.withdraw(merchant, "w1", 14_000, CHANNEL),
        await fund.charge_back(merchant, "c1", "q", 9_000),
    ):
        await fund.wait_until_settled(order)
    paid = await fund.wait_until_settled(await fund.pay(merchant, "z", 1_000, "CNY", CHANNEL))
    assert paid.set_off == paid.amount - paid.fee
    with pytest.raises(Refused) as refused:
        await fund.recover(merchant, "v1", 10**9)
    assert refused.value.problem.code == "debt-exceeded"
    given_up = await checker.approve(await fund.write_off(merchant, "o1", 500, "why"))
    assert (await fund.wait_until_settled(given_up)).state == "posted"


async def test_what_is_the_platforms_own_is_booked_and_reversed(
    fund: FundService, checker: FundService, merchant: str
) -> None:
    number = uuid.uuid4().hex
    cost = await fund.wait_until_settled(await fund.channel_cost(number, CHANNEL, 7, "CNY"))
    assert cost.state == "posted"
    waiting = [
        await fund.bank_difference(number, CHANNEL, 7, "CNY", "more", "why"),
        await fund.reverse(f"{number}x", "channel_cost", number, "why"),
        await fund.reverse("x1", "payment", "p", "why", merchant),
    ]
    assert {order.state for order in waiting} == {"created"}
    results = await checker.approve_many([order.id for order in waiting])
    assert [result.id for result in results] == [order.id for order in waiting]
    for kind, result in zip(("bank_difference", "reversal", "reversal"), results, strict=True):
        order = await fund.order(kind, result.id)
        assert order is not None
        assert (await fund.wait_until_settled(order)).state == "posted"


async def test_an_order_has_events(fund: FundService, merchant: str) -> None:
    async def are_read() -> bool:
        try:
            async for event in fund.events(wait_s=1, limit=1000):
                if event.members.get("merchant") == merchant:
                    return True
        except QuotaExceeded:
            # Long polls of other tests with this token may still wait at the same worker.
            return False
        raise AssertionError("the feed ended")

    await eventually(are_read, "the events of the merchant are read")


async def test_a_token_that_is_not_known_is_unauthorized(platform: Any) -> None:
    async with FundService(platform.fund_url, "wrong") as fund:
        assert await fund.is_ready()
        with pytest.raises(Unauthorized):
            await fund.merchant("m")


async def test_the_example_of_the_page_does_what_it_says(platform: Any) -> None:
    example = re.search(r"```python\n((?:(?!```).)*FundService.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(compile(example[1], str(PAGE), "exec"), names)
    await names["main"](platform.fund_url, platform.token)
