"""Every kind of order of the fund service over HTTP, its replays, and the look-up of orders."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fundledger.client.faults import Problem
from fundledger.client.types import Voucher, VoucherResult
from tests.support.answers import is_problem
from tests.support.client import Answer, Client
from tests.support.fund_books import prove_fund
from tests.support.fund_http import OTHER_TOKEN, FundClient, a_fund_service
from tests.support.running import RunningService
from tests.support.wire import connected, request

FEE = {"basis_points": 60}
ALWAYS = {
    "id",
    "kind",
    "merchant",
    "order_no",
    "state",
    "amount",
    "fee",
    "net",
    "currency",
    "voucher_id",
    "channel",
    "created_at",
}


def is_order(answer: Answer, status: int, state: str, **members: Any) -> bool:
    assert answer.status == status, answer
    assert set(answer.json) >= ALWAYS, answer
    assert answer.json["state"] == state, answer
    assert {name: answer.json[name] for name in members} == members
    return True


async def test_a_merchant_is_created_once_and_shows_its_balances(fund: FundClient) -> None:
    members = {"id": f"m-{fund.salt}", "name": "Tea House", "currency": "CNY", "fee": FEE}
    first = await fund.post("/v1/merchants", members)
    assert first.status == 201
    ids = [f"merchant:{members['id']}:{name}" for name in ("available", "pending", "receivable")]
    assert first.json["accounts"] == ids
    nothing = {"posted": 0, "held": 0, "pending": 0, "available": 0}
    assert first.json["balances"] == dict.fromkeys(ids, nothing)
    assert first.json["fee"] == {"basis_points": 60, "fixed": 0, "minimum": 0, "maximum": None}
    again = await fund.post("/v1/merchants", members)
    assert (again.status, again.json) == (200, first.json)
    assert is_problem(await fund.post("/v1/merchants", {**members, "name": "Other"}), 409, "merchant-exists")
    assert (await fund.get(f"/v1/merchants/{members['id']}")).json == first.json
    assert is_problem(await fund.get("/v1/merchants/nobody"), 404, "not-found")


async def test_merchants_are_listed_a_page_at_a_time(fund: FundClient) -> None:
    made = [await fund.shop(f"l{i}") for i in range(3)]
    found: list[str] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = await fund.get(f"/v1/merchants?limit=2&cursor={cursor}")
        assert page.status == 200, page
        found += [merchant["id"] for merchant in page.json["merchants"]]
        cursor = page.json["next_cursor"]
    assert [id_ for id_ in found if id_ in made] == made
    assert len(found) == len(set(found))


async def test_a_new_fee_is_kept_beside_those_before_and_never_too_soon(fund: FundClient) -> None:
    merchant = await fund.shop(fee=FEE)
    rule = await fund.post(f"/v1/merchants/{merchant}/fees", {"product": "payment", "fixed": 7})
    assert (rule.json["kind"], rule.json["subject"]) == ("fee_rule", f"{merchant} payment *")
    assert len((await fund.get(f"/v1/merchants/{merchant}")).json["fees"]) == 1
    assert (await fund.approve(rule)).json["state"] == "applied"
    shown = (await fund.get(f"/v1/merchants/{merchant}")).json
    assert shown["fee"]["basis_points"] == 60
    assert [each["fixed"] for each in shown["fees"]] == [0, 7]
    past = {"product": "payment", "effective_at": "2020-01-01T00:00:00Z"}
    assert is_problem(await fund.post(f"/v1/merchants/{merchant}/fees", past), 422, "fee-rule-too-soon")
    assert is_problem(await fund.post("/v1/merchants/nobody/fees", {"product": "payment"}), 404, "not-found")
    for bad in ({"minimum": 5, "maximum": 4}, {"effective_at": "9999-12-31T23:59:59-14:00"}):
        answer = await fund.post(f"/v1/merchants/{merchant}/fees", {"product": "payment", **bad})
        assert is_problem(answer, 400, "malformed"), answer


async def test_a_payment_is_answered_with_its_order_and_a_repeat_with_the_order_as_it_stands(fund: FundClient) -> None:
    merchant = await fund.shop(fee=FEE)
    first = await fund.paid(merchant, "1", 10_000, channel_ref="ref-1")
    assert is_order(first, 201, "posted", fee=60, net=9_940, channel_ref="ref-1", settle="now", merchant=merchant)
    assert not first.is_replay
    again = await fund.paid(merchant, "1", 10_000, channel_ref="ref-1")
    assert is_order(again, 200, "posted")
    assert again.is_replay
    assert again.json == first.json
    assert is_problem(await fund.paid(merchant, "1", 10_001, channel_ref="ref-1"), 422, "order-no-reused")
    assert await fund.has(merchant) == (9_940, 0, 0)


async def test_the_fast_path_and_the_ordinary_one_give_the_same_answers(fund: FundClient) -> None:
    merchant = await fund.shop()
    bodies = [
        json.dumps(fund.payment(merchant, "same", 5)).encode(),
        json.dumps(fund.payment("nobody", "same", 5)).encode(),
        json.dumps(fund.payment(merchant, "same", 6)).encode(),
        b'{"merchant":"x","merchant":"y"}',
        b"[]",
        b"",
    ]
    for body in bodies:
        replies = []
        for headers in ({}, {"Expect": "100-continue"}):
            async with connected(fund.base_url) as wire:
                await wire.send(request("GET", "/healthz", None))
                assert (await wire.reply()).status == 200
                await wire.send(request("POST", "/v1/payments", fund.token, body, headers))
                reply = await wire.reply()
                replies.append(await wire.reply() if reply.status == 100 else reply)
        assert replies[0].status in (201, 400, 422)
        assert replies[1].status == (200 if replies[0].status == 201 else replies[0].status)
        members = [{name: value for name, value in each.json.items() if name != "request_id"} for each in replies]
        assert members[0] == members[1]


async def test_a_key_that_stands_twice_is_malformed_on_both_paths_and_explicit_defaults_are_not(
    fund: FundClient,
) -> None:
    merchant = await fund.shop()
    whole = json.dumps(fund.payment(merchant, "twice", 5, settle="now", channel_ref=None))
    assert is_order(await fund.post("/v1/payments", body=whole.encode()), 201, "posted")
    for twice in ('"amount": 5', '"settle": "now"', '"channel_ref": null', f'"merchant": "{merchant}"'):
        assert is_problem(await fund.post("/v1/payments", body=f"{whole[:-1]}, {twice}}}".encode()), 400, "malformed")
        batch = f'{{"payments": [{whole[:-1]}, {twice}}}]}}'
        assert is_problem(await fund.post("/v1/payments/batch", body=batch.encode()), 400, "malformed")


async def test_a_second_payment_for_a_receipt_names_the_first(fund: FundClient) -> None:
    merchant, other = await fund.shop("one"), await fund.shop("two")
    first = await fund.paid(merchant, "1", 100, channel_ref="R")
    assert is_order(first, 201, "posted")
    again = await fund.paid(other, "2", 100, channel_ref="R")
    assert is_problem(again, 422, "receipt-already-booked")
    assert again.json["field"] == "channel_ref"
    assert f"payment 1 of {merchant} ({first.json['id']})" in again.json["detail"]
    both = [fund.payment(other, number, 100, channel_ref=ref) for number, ref in (("3", "R"), ("4", "S"))]
    results = (await fund.post("/v1/payments/batch", {"payments": both})).json["results"]
    assert [result["state"] for result in results] == ["refused", "posted"]
    assert results[0]["problem"]["type"].endswith(":receipt-already-booked")
    assert await fund.has(other) == (100, 0, 0)


async def test_a_payment_to_a_frozen_merchant_is_answered_as_parked(fund: FundClient, client: Client) -> None:
    merchant = await fund.shop()
    path = f"/v1/accounts/merchant:{merchant}:available"
    assert (await client.post(f"{path}/freeze", {"reason": "court", "scope": "all"})).status == 200
    order = await fund.paid(merchant, "1", 100)
    assert is_order(order, 201, "parked", parked_voucher_id=order.json["voucher_id"])
    again = await fund.paid(merchant, "1", 100)
    assert is_order(again, 200, "parked")
    assert (await client.post(f"{path}/unfreeze")).status == 200
    released = await fund.post(f"/v1/payments/{order.json['id']}/retry", {})
    assert is_order(released, 200, "posted")
    history = (await fund.get(f"/v1/payments/{order.json['id']}/history")).json["history"]
    assert [step["state"] for step in history] == ["created", "posting", "parked", "posting", "posted"]
    assert await fund.has(merchant) == (100, 0, 0)


async def test_a_batch_of_payments_has_aligned_answers(fund: FundClient) -> None:
    merchant, other = await fund.shop(), await fund.shop("other")
    assert (await fund.paid(merchant, "old", 5)).status == 201
    payments = [
        fund.payment(merchant, "a", 1),
        fund.payment(other, "b", 2),
        fund.payment("nobody", "c", 3),
        fund.payment(merchant, "a", 1),
        fund.payment(merchant, "a", 2),
        fund.payment(merchant, "d", 3, currency="USD"),
        fund.payment(merchant, "old", 5),
        fund.payment(merchant, "e", 4),
    ]
    answer = await fund.post("/v1/payments/batch", {"payments": payments})
    assert answer.status == 200, answer
    results = answer.json["results"]
    assert [result["order_no"] for result in results] == [payment["order_no"] for payment in payments]
    refused = {2: "merchant-not-found", 4: "order-no-reused", 5: "currency-mismatch"}
    for i, result in enumerate(results):
        assert (result["state"] == "refused") == (i in refused), result
        assert ("id" in result) == (i not in refused)
        if i in refused:
            assert result["problem"]["type"].endswith(":" + refused[i])
    assert [i for i, result in enumerate(results) if result.get("replay")] == [3, 6]
    assert results[0]["id"] == results[3]["id"]
    assert await fund.has(merchant) == (5 + 1 + 4, 0, 0)
    bad = {"payments": [fund.payment(merchant, "f", 5), {**fund.payment(merchant, "g", 5), "amount": 0}]}
    answer = await fund.post("/v1/payments/batch", bad)
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == "payments[1].amount"
    assert await fund.has(merchant) == (10, 0, 0)
    assert is_problem(await fund.post("/v1/payments/batch", {"payments": []}), 400, "malformed")


async def test_every_other_verb_does_what_it_says(fund: FundClient) -> None:
    merchant = await fund.shop(balance=10_000)
    named = {"merchant": merchant}
    assert (await fund.paid(merchant, "p", 1_000, settle="later")).status == 201
    assert await fund.has(merchant) == (10_000, 1_000, 0)
    assert is_order(await fund.post("/v1/settlements", {**named, "order_no": "s"}), 201, "posted", amount=1_000)
    refund = await fund.post("/v1/refunds", {**named, "order_no": "r", "payment_order_no": "p", "amount": 400})
    assert is_order(refund, 201, "posted", kind="refund")
    assert refund.json["of_order"] == (await fund.get(f"/v1/payments?merchant={merchant}&order_no=p")).json["id"]
    chargeback = {**named, "order_no": "c", "payment_order_no": "p", "amount": 600}
    assert is_order(await fund.post("/v1/chargebacks", chargeback), 201, "posted")
    assert await fund.has(merchant) == (10_000, 0, 0)
    # A shortfall is owed, repaid by the next payment, or written off.
    big = await fund.shop("big", balance=1_000)
    drawn = {"merchant": big, "order_no": "w", "amount": 1_000, "channel": f"c-{fund.salt}"}
    assert is_order(await fund.post("/v1/withdrawals", drawn), 201, "posted")
    owed = {"merchant": big, "order_no": "c", "payment_order_no": "first-big", "amount": 500}
    assert is_order(await fund.post("/v1/chargebacks", owed), 201, "posted", to_receivable=500)
    assert is_order(await fund.paid(big, "new", 100), 201, "posted", set_off=100)
    more = {"merchant": big, "order_no": "x", "amount": 401}
    assert is_problem(await fund.post("/v1/recoveries", more), 422, "debt-exceeded")
    given_up = {"merchant": big, "order_no": "y", "amount": 400, "reason": "gone"}
    await approved(fund, "write-offs", given_up, kind="write_off", reason="gone")
    assert await fund.has(big) == (0, 0, 0)
    ours = {"channel": f"c-{fund.salt}", "currency": "CNY", "amount": 3}
    cost = await fund.post("/v1/channel-costs", {**ours, "order_no": f"k-{fund.salt}"})
    assert is_order(cost, 201, "posted", merchant="platform")
    difference = {**ours, "order_no": f"d-{fund.salt}", "direction": "more", "reason": "statement"}
    await approved(fund, "bank-differences", difference, direction="more")
    undone = {"order_no": f"u-{fund.salt}", "of_kind": "channel_cost", "of_order_no": f"k-{fund.salt}", "reason": "no"}
    await approved(fund, "reversals", undone)
    assert (await fund.get(f"/v1/channel-costs/{cost.json['id']}")).json["reversed_by"]


async def approved(fund: FundClient, path: str, body: dict[str, Any], **members: Any) -> None:
    """Request an order that needs an approval, and approve it as another module."""
    created = await fund.post(f"/v1/{path}", body)
    assert is_order(created, 201, "created", **members)
    async with FundClient(fund.base_url, OTHER_TOKEN) as other:
        answer = await other.post(f"/v1/{path}/{created.json['id']}/approve")
    assert is_order(answer, 200, "posted", approved_by="others", **members)


async def test_a_withdrawal_is_paid_or_bounces_once(fund: FundClient) -> None:
    merchant = await fund.shop(balance=1_000)
    ids = []
    for order_no in ("a", "b"):
        drawn = {"merchant": merchant, "order_no": order_no, "amount": 400, "channel": f"c-{fund.salt}"}
        ids.append((await fund.post("/v1/withdrawals", drawn)).json["id"])
    paid = f"/v1/withdrawals/{ids[0]}/paid"
    first = await fund.post(paid, {"channel_ref": "P1"})
    assert is_order(first, 200, "paid", channel_ref="P1", ending="paid")
    assert not first.is_replay
    again = await fund.post(paid, {"channel_ref": "P1"})
    assert is_order(again, 200, "paid")
    assert again.is_replay
    bounced = f"/v1/withdrawals/{ids[1]}/bounced"
    assert is_order(await fund.post(bounced, {"reason": "closed"}), 200, "bounced", reason="closed")
    assert (await fund.post(bounced, {"reason": "closed"})).is_replay
    assert is_problem(await fund.post(paid.replace("paid", "bounced"), {"reason": "x"}), 422, "withdrawal-paid")
    assert is_problem(
        await fund.post(bounced.replace("bounced", "paid"), {"channel_ref": "x"}), 422, "withdrawal-bounced"
    )
    assert await fund.has(merchant) == (600, 0, 0)
    history = await fund.get(f"/v1/withdrawals/{ids[0]}/history")
    assert [step["state"] for step in history.json["history"]] == ["created", "posting", "posted", "paid"]


async def test_an_adjustment_is_posted_when_another_one_approves(fund: FundClient) -> None:
    merchant = await fund.shop()
    asked = {
        "merchant": merchant,
        "order_no": "a",
        "amount": 9,
        "direction": "credit",
        "reason": "slip",
        "person": "li",
    }
    created = await fund.post("/v1/adjustments", asked)
    assert is_order(created, 201, "created")
    path = f"/v1/adjustments/{created.json['id']}/approve"
    assert is_problem(await fund.post(path, {"person": "li"}), 422, "approval-needs-another")
    assert await fund.has(merchant) == (0, 0, 0)
    async with FundClient(fund.base_url, OTHER_TOKEN) as other:
        approved = await other.post(path)
        assert is_order(approved, 200, "posted", approved_by="others")
        assert (await other.post(path)).is_replay
    assert await fund.has(merchant) == (9, 0, 0)


async def test_a_refusal_of_the_account_service_is_answered_with_the_order_and_replayed_unchanged(
    fund: FundClient,
) -> None:
    merchant = await fund.shop(balance=100)
    drawn = {"merchant": merchant, "order_no": "w", "amount": 101, "channel": f"c-{fund.salt}"}
    first = await fund.post("/v1/withdrawals", drawn)
    assert is_problem(first, 422, "insufficient-funds")
    assert first.json["order"]["state"] == "refused"
    again = await fund.post("/v1/withdrawals", drawn)
    assert is_order(again, 200, "refused")
    assert again.is_replay
    assert again.json["problem"]["type"] == first.json["type"]
    assert again.json == first.json["order"]
    assert await fund.has(merchant) == (100, 0, 0)


async def test_orders_are_found_by_number_by_id_and_a_page_at_a_time(fund: FundClient) -> None:
    merchant, other = await fund.shop(), await fund.shop("other")
    await asyncio.gather(*(fund.paid(merchant, str(i), i + 1) for i in range(5)), fund.paid(other, "0", 1))
    one = await fund.get(f"/v1/payments?merchant={merchant}&order_no=3")
    assert is_order(one, 200, "posted", amount=4)
    assert (await fund.get(f"/v1/payments/{one.json['id']}")).json == one.json
    assert is_problem(await fund.get(f"/v1/refunds/{one.json['id']}"), 404, "not-found")
    assert is_problem(await fund.get(f"/v1/payments?merchant={other}&order_no=3"), 404, "not-found")
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = await fund.get(f"/v1/payments?merchant={merchant}&state=posted&limit=2{more}")
        assert len(page.json["orders"]) <= 2
        found += [order["order_no"] for order in page.json["orders"]]
        cursor = page.json["next_cursor"]
    assert sorted(found) == ["0", "1", "2", "3", "4"]
    assert (await fund.get(f"/v1/payments?merchant={merchant}&state=refused")).json == {
        "orders": [],
        "next_cursor": None,
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "merchant"),
        ("?merchant=a%20b", "merchant"),
        ("?merchant=m&state=gone", "state"),
        ("?merchant=m&limit=0", "limit"),
        ("?merchant=m&limit=501", "limit"),
        ("?merchant=m&limit=x", "limit"),
        ("?merchant=m&cursor=-1", "cursor"),
        ("?merchant=m&cursor=99999999999999999999", "cursor"),
        ("?merchant=m&order_no=a&cursor=5", "cursor"),
        ("?merchant=m&order_no=", "order_no"),
        ("?merchant=m&foo=1", "foo"),
    ],
)
async def test_a_bad_query_names_its_parameter(fund: FundClient, query: str, field: str) -> None:
    answer = await fund.get(f"/v1/payments{query}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == field


async def test_a_stuck_order_is_listed_and_retried_over_http(
    fund_database: str, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_fund_service(fund_database, tmp_path, service) as (running, url), FundClient(url) as fund:
        merchant = await fund.shop("s", 100)
        problem = {"type": "urn:fundledger:problem:voucher-id-reused", "status": 422, "title": "t", "detail": "d"}

        async def reused(vouchers: Sequence[Voucher]) -> list[VoucherResult]:
            return [VoucherResult(voucher.id, "refused", Problem(problem)) for voucher in vouchers]

        with monkeypatch.context() as broken:
            broken.setattr(running._accounts, "post_vouchers", reused)
            body = {"merchant": merchant, "order_no": "w", "amount": 10, "channel": "c"}
            stuck = await fund.post("/v1/withdrawals", body)
            assert is_order(stuck, 202, "stuck", problem=problem)
        assert is_order(await fund.post("/v1/withdrawals", body), 202, "stuck")
        listed = await fund.get(f"/v1/withdrawals?merchant={merchant}&state=stuck")
        assert [order["id"] for order in listed.json["orders"]] == [stuck.json["id"]]
        path = f"/v1/withdrawals/{stuck.json['id']}"
        assert is_order(await fund.post(f"{path}/retry", {"reason": "cleared"}), 200, "posted")
        assert is_order(await fund.post(f"{path}/retry"), 200, "posted")
        steps = (await fund.get(f"{path}/history")).json["history"]
        assert [step["state"] for step in steps] == ["created", "posting", "stuck", "posting", "posted"]
        assert steps[3]["detail"] == {"retried_by": "tests", "reason": "cleared"}
        assert is_problem(await fund.post(f"/v1/payments/{stuck.json['id']}/retry"), 404, "not-found")
    await prove_fund(fund_database, service.dsn, fund.salt)
