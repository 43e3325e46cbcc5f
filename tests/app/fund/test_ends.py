"""Ends of refunds and returns of payouts, over HTTP: answers, replays, lists, bills, histories and channels."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from fundledger.client import FundService
from tests.app.fund.test_lists import CSV, table
from tests.app.fund.test_orders import approved, is_order
from tests.support.answers import is_problem
from tests.support.client import Answer, new_id
from tests.support.fund_http import TOKEN, FundClient

FEE = {"basis_points": 100}


async def refunded(fund: FundClient, merchant: str, number: str, payment: str, amount: int) -> Answer:
    body = {"merchant": merchant, "order_no": number, "payment_order_no": payment, "amount": amount}
    return await fund.post("/v1/refunds", body)


async def drawn(fund: FundClient, merchant: str, number: str, amount: int) -> str:
    """Request a withdrawal. Return its path."""
    body = {"merchant": merchant, "order_no": number, "amount": amount, "channel": f"c-{fund.salt}"}
    answer = await fund.post("/v1/withdrawals", body)
    assert is_order(answer, 201, "posted")
    return f"/v1/withdrawals/{answer.json['id']}"


def returned(merchant: str, number: str, amount: int, **more: Any) -> dict[str, Any]:
    named = {"merchant": merchant, "order_no": number, "amount": amount}
    return {**named, "withdrawal_order_no": "w", "channel_ref": f"back-{number}-{merchant}", **more}


async def paid_out(fund: FundClient, merchant: str, amount: int) -> str:
    """Request a withdrawal `w`, and report that it is paid. Return its path."""
    path = await drawn(fund, merchant, "w", amount)
    assert (await fund.post(f"{path}/paid", {"channel_ref": f"out-{merchant}"})).status == 200
    return path


# --- Refunds ----------------------------------------------------------------------------------------------------------


async def test_a_refund_is_paid_or_bounces_once(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    ids = [(await refunded(fund, merchant, number, "first-m", 400)).json["id"] for number in ("a", "b")]
    assert await fund.has(merchant) == (200, 0, 0)
    paid, ref = f"/v1/refunds/{ids[0]}/paid", f"P1-{fund.salt}"
    first = await fund.post(paid, {"channel_ref": ref})
    assert is_order(first, 200, "paid", kind="refund", channel_ref=ref, ending="paid")
    assert not first.is_replay
    again = await fund.post(paid, {"channel_ref": ref})
    assert is_order(again, 200, "paid")
    assert again.is_replay
    bounced = f"/v1/refunds/{ids[1]}/bounced"
    assert is_order(await fund.post(bounced, {"reason": "closed"}), 200, "bounced", reason="closed")
    assert (await fund.post(bounced, {"reason": "closed"})).is_replay
    assert is_problem(await fund.post(f"/v1/refunds/{ids[0]}/bounced", {"reason": "x"}), 422, "refund-paid")
    assert is_problem(await fund.post(f"/v1/refunds/{ids[1]}/paid", {"channel_ref": "x"}), 422, "refund-bounced")
    assert is_problem(await fund.post(paid, {"channel_ref": "another"}), 422, "refund-paid")
    assert await fund.has(merchant) == (600, 0, 0)
    history = (await fund.get(f"/v1/refunds/{ids[1]}/history")).json["history"]
    assert [step["state"] for step in history] == ["created", "posting", "posted", "bounced"]
    replay = await refunded(fund, merchant, "b", "first-m", 400)
    assert is_order(replay, 200, "bounced")
    assert replay.is_replay
    assert is_order(await refunded(fund, merchant, "c", "first-m", 600), 201, "posted")


async def test_a_refund_that_is_requested_is_answered_as_posted(fund: FundClient) -> None:
    """The contract of a refund is that of before: the money has left the merchant."""
    merchant = await fund.shop(balance=1_000, fee=FEE)
    answer = await refunded(fund, merchant, "r", "first-m", 500)
    assert is_order(answer, 201, "posted", fee=5, net=-495)
    assert not {"ending", "channel_ref", "reason", "returned"} & set(answer.json)
    assert (await fund.get(f"/v1/refunds/{answer.json['id']}")).json == answer.json


async def test_an_end_is_of_an_order_of_the_path(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    withdrawal = await drawn(fund, merchant, "w", 100)
    refund = f"/v1/refunds/{(await refunded(fund, merchant, 'r', 'first-m', 100)).json['id']}"
    for path in (withdrawal.replace("withdrawals", "refunds"), refund.replace("refunds", "withdrawals")):
        for end, body in (("paid", {"channel_ref": "x"}), ("bounced", {"reason": "x"})):
            assert is_problem(await fund.post(f"{path}/{end}", body), 404, "not-found")
    assert await fund.has(merchant) == (800, 0, 0)
    for path in (withdrawal, refund):
        assert (await fund.get(path)).json["state"] == "posted"


async def test_a_reference_that_paid_a_withdrawal_pays_no_refund(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    await paid_out(fund, merchant, 100)
    refund = await refunded(fund, merchant, "r", "first-m", 100)
    answer = await fund.post(f"/v1/refunds/{refund.json['id']}/paid", {"channel_ref": f"out-{merchant}"})
    assert is_problem(answer, 422, "receipt-already-booked")
    assert (await fund.get(f"/v1/refunds/{refund.json['id']}")).json["state"] == "posted"


# --- Payout returns ---------------------------------------------------------------------------------------------------


async def test_a_payout_that_returns_is_answered_with_its_order_and_shown_at_the_withdrawal(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_010, withdrawal_fee=FEE)
    path = await paid_out(fund, merchant, 1_000)
    before = (await fund.get(path)).json
    assert "returned" not in before
    first = await fund.post("/v1/payout-returns", returned(merchant, "b1", 600))
    assert is_order(first, 201, "posted", kind="payout_return", fee=0, net=600, of_order=before["id"])
    assert first.json["channel"] == f"c-{fund.salt}"
    again = await fund.post("/v1/payout-returns", returned(merchant, "b1", 600))
    assert is_order(again, 200, "posted")
    assert (again.is_replay, again.json) == (True, first.json)
    assert (await fund.get(path)).json == {**before, "returned": 600}
    second = await fund.post("/v1/payout-returns", returned(merchant, "b2", 400, fee="returned"))
    assert is_order(second, 201, "posted", fee=4, net=404)
    assert (await fund.get(path)).json == {**before, "returned": 1_000}
    more = await fund.post("/v1/payout-returns", returned(merchant, "b3", 1))
    assert is_problem(more, 422, "return-exceeds-withdrawal")
    assert more.json["field"] == "amount"
    assert await fund.has(merchant) == (1_004, 0, 0)
    listed = (await fund.get(f"/v1/payout-returns?merchant={merchant}")).json["orders"]
    assert listed == [first.json, second.json]
    assert (await fund.get(f"/v1/orders?merchant={merchant}&kind=payout_return")).json["orders"] == listed
    # The withdrawal itself is answered as before.
    body = {"merchant": merchant, "order_no": "w", "amount": 1_000, "channel": f"c-{fund.salt}"}
    assert is_order(await fund.post("/v1/withdrawals", body), 200, "paid", returned=1_000)


@pytest.mark.parametrize(
    ("body", "problem", "field"),
    [
        ({"withdrawal_order_no": "none"}, "withdrawal-not-found", "withdrawal_order_no"),
        ({"withdrawal_order_no": "first-m"}, "withdrawal-not-found", "withdrawal_order_no"),
        ({"withdrawal_order_no": "open"}, "withdrawal-not-paid", "withdrawal_order_no"),
        ({"amount": 101}, "return-exceeds-withdrawal", "amount"),
        ({"amount": (1 << 53) - 1}, "return-exceeds-withdrawal", "amount"),
        ({"merchant": "nobody"}, "merchant-not-found", None),
        ({"merchant": "platform"}, "merchant-not-found", None),
    ],
)
async def test_a_return_that_cannot_be_is_refused_and_stores_nothing(
    fund: FundClient, body: dict[str, Any], problem: str, field: str | None
) -> None:
    merchant = await fund.shop(balance=200)
    await paid_out(fund, merchant, 100)
    await drawn(fund, merchant, "open", 50)
    asked = {**returned(merchant, "b", 1), **body}
    answer = await fund.post("/v1/payout-returns", asked)
    assert is_problem(answer, 422, problem)
    assert field is None or answer.json["field"] == field
    assert await fund.has(merchant) == (50, 0, 0)
    assert is_order(await fund.post("/v1/payout-returns", returned(merchant, "b", 1)), 201, "posted")


async def test_a_return_of_a_foreign_payout_shows_nothing_of_it(fund: FundClient) -> None:
    owner, other = await fund.shop("owner", 1_000), await fund.shop("other", 1_000)
    await paid_out(fund, owner, 777)
    answer = await fund.post("/v1/payout-returns", returned(other, "b", 1))
    assert is_problem(answer, 422, "withdrawal-not-found")
    assert "777" not in str(answer.json)
    assert owner not in str(answer.json)


@pytest.mark.parametrize("body", [{"fee": "waived"}, {"fee": None}, {"fee": 5}, {"channel_ref": None}, {"amount": 0}])
async def test_a_malformed_return_names_its_member(fund: FundClient, body: dict[str, Any]) -> None:
    merchant = await fund.shop()
    answer = await fund.post("/v1/payout-returns", {**returned(merchant, "b", 1), **body})
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == next(iter(body))


async def test_concurrent_replays_of_a_return_are_one_order(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    await paid_out(fund, merchant, 1_000)
    body = returned(merchant, "b", 500)
    answers = await asyncio.gather(*(fund.post("/v1/payout-returns", body) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert await fund.has(merchant) == (500, 0, 0)


async def test_a_return_is_reversed_by_two_identities(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    path = await paid_out(fund, merchant, 1_000)
    made = await fund.post("/v1/payout-returns", returned(merchant, "b", 1_000))
    undo = {"merchant": merchant, "of_kind": "payout_return", "of_order_no": "b", "reason": "another payout"}
    await approved(fund, "reversals", {**undo, "order_no": "u"}, net=-1_000)
    assert (await fund.get(f"/v1/payout-returns/{made.json['id']}")).json["reversed_by"]
    assert "returned" not in (await fund.get(path)).json
    assert await fund.has(merchant) == (0, 0, 0)


# --- Reports ----------------------------------------------------------------------------------------------------------


async def test_a_bill_has_a_line_for_each_step_of_the_money(fund: FundClient, fund_url: str) -> None:
    merchant = await fund.shop(balance=10_000, fee=FEE, withdrawal_fee=FEE)
    refunds = [await refunded(fund, merchant, number, "first-m", 1_000) for number in ("f1", "f2")]
    await fund.post(f"/v1/refunds/{refunds[0].json['id']}/bounced", {"reason": "closed"})
    await fund.post(f"/v1/refunds/{refunds[1].json['id']}/paid", {"channel_ref": f"f2-{fund.salt}"})
    await paid_out(fund, merchant, 1_000)
    await fund.post("/v1/payout-returns", returned(merchant, "b", 1_000, fee="returned"))
    async with FundService(fund_url, TOKEN) as client:
        pages = [page async for page in client.bill(merchant, month=f"{datetime.now(UTC):%Y-%m}")]
    lines = [(line.kind, line.order_no, line.fee, line.change.available) for page in pages for line in page.lines]
    assert lines == [
        ("payment", "first-m", 100, 9_900),
        ("refund", "f1", -10, -990),
        ("refund", "f2", -10, -990),
        ("refund", "f1", 10, 990),
        ("withdrawal", "w", 10, -1_010),
        ("payout_return", "b", -10, 1_010),
    ]
    assert pages[-1].closing.available == 8_910


async def test_orders_with_an_end_are_listed_with_it(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    refund = await refunded(fund, merchant, "r", "first-m", 100)
    ref = f"list-{fund.salt}"
    await fund.post(f"/v1/refunds/{refund.json['id']}/paid", {"channel_ref": ref})
    await paid_out(fund, merchant, 100)
    await fund.post("/v1/payout-returns", returned(merchant, "b", 60))
    for query in (f"merchant={merchant}&kind=refund&state=paid", f"channel=c-{fund.salt}&channel_ref={ref}"):
        found = (await fund.get(f"/v1/orders?{query}")).json["orders"]
        assert [order["order_no"] for order in found] == ["r"], query
    rows = table(await fund.get(f"/v1/orders?merchant={merchant}", headers=CSV))
    assert [(row["kind"], row["returned"]) for row in rows] == [
        ("payment", ""),
        ("refund", ""),
        ("withdrawal", "60"),
        ("payout_return", ""),
    ]


async def test_events_show_the_order_as_it_was(fund: FundClient) -> None:
    """A payout return changes the withdrawal after its last event, and later events must not show this as its own."""
    merchant = await fund.shop(balance=1_000)
    refund = await refunded(fund, merchant, "r", "first-m", 100)
    await fund.post(f"/v1/refunds/{refund.json['id']}/bounced", {"reason": "closed"})
    await paid_out(fund, merchant, 100)
    await fund.post("/v1/payout-returns", returned(merchant, "b", 60))
    found: list[dict[str, Any]] = []
    after = 0
    while not found or found[-1]["type"] != "payout_return.posted":
        page = (await fund.get(f"/v1/events?after={after}&limit=500&wait_s=5")).json
        found += [event for event in page["events"] if event["order"]["merchant"] == merchant]
        after = page["next"]
    assert [event["type"] for event in found] == [
        *("payment.posted", "refund.posted", "refund.bounced", "withdrawal.posted", "withdrawal.paid"),
        "payout_return.posted",
    ]
    posted, bounced = found[1]["order"], found[2]["order"]
    assert (posted["state"], "ending" in posted, "reason" in posted) == ("posted", False, False)
    assert (bounced["state"], bounced["ending"], bounced["reason"]) == ("bounced", "bounced", "closed")
    assert [event["order"].get("returned") for event in found] == [None] * 6


async def test_an_end_of_an_unknown_refund_is_not_found(fund: FundClient) -> None:
    for end, body in (("paid", {"channel_ref": "x"}), ("bounced", {"reason": "x"})):
        assert is_problem(await fund.post(f"/v1/refunds/{new_id()}/{end}", body), 404, "not-found")
        assert is_problem(await fund.post(f"/v1/payout-returns/{new_id()}/{end}", body), 404, "not-found")
