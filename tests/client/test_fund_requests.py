"""The fund service accepts each kind of request that the client sends; its responses are typed."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from fundledger.client import (
    Fee,
    FeeRule,
    FundService,
    Order,
    OrderRefused,
    OutcomeUnknown,
    Payment,
    Refused,
    SplitPart,
    Unauthorized,
)
from fundledger.client.fund_types import PATHS
from fundledger.fund.model.order import Kind
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.requests import MerchantRequest
from fundledger.fund.model.split_requests import SplitPaymentPart, SplitRefundPart
from tests.client.stub import CUT, Say, Stub, problem

ID = uuid.UUID("00000000-0000-4000-8000-00000000000a")
ORDER: dict[str, Any] = {
    "id": str(ID),
    "kind": "payment",
    "merchant": "m",
    "order_no": "1",
    "state": "posted",
    "amount": 100,
    "fee": 1,
    "net": 99,
    "currency": "CNY",
    "voucher_id": str(uuid.uuid4()),
    "channel": "c",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "posted_at": "2026-01-31T12:00:00.000000Z",
    "of_a_newer_server": {"x": 1},
}
PARTS = [SplitPart("a", 3), SplitPart("b", 2, commission=1)]
PAID = [{"merchant": "a", "amount": 3}, {"merchant": "b", "amount": 2, "commission": 1}]
Call = Callable[[FundService], Awaitable[Order]]
REQUESTED: list[tuple[Kind, Call, dict[str, Any]]] = [
    (
        Kind.PAYMENT,
        lambda fund: fund.pay("m", "1", 5, "CNY", "c", "ref", "later", "ticket"),
        {"channel_ref": "ref", "settle": "later", "ticket": "ticket"},
    ),
    (Kind.PAYMENT, lambda fund: fund.pay("m", "1", 5, "CNY", "c"), {"channel": "c", "settle": "now"}),
    (Kind.REFUND, lambda fund: fund.refund("m", "1", "p", 5), {"payment_order_no": "p"}),
    (Kind.SETTLEMENT, lambda fund: fund.settle("m", "1"), {"amount": None}),
    (Kind.SETTLEMENT, lambda fund: fund.settle("m", "1", 5), {"amount": 5}),
    (Kind.WITHDRAWAL, lambda fund: fund.withdraw("m", "1", 5, "c"), {"channel": "c", "payee": None}),
    (Kind.WITHDRAWAL, lambda fund: fund.withdraw("m", "1", 5, "c", payee=ID), {"channel": "c", "payee": ID}),
    (
        Kind.PAYOUT_RETURN,
        lambda fund: fund.return_payout("m", "1", "w", 5, "ref"),
        {"withdrawal_order_no": "w", "channel_ref": "ref", "fee": "kept"},
    ),
    (
        Kind.PAYOUT_RETURN,
        lambda fund: fund.return_payout("m", "1", "w", 5, "ref", "returned", "ticket"),
        {"fee": "returned", "ticket": "ticket"},
    ),
    (Kind.CHARGEBACK, lambda fund: fund.charge_back("m", "1", "p", 5, "ref"), {"channel_ref": "ref"}),
    (Kind.RECOVERY, lambda fund: fund.recover("m", "1", 5), {"amount": 5}),
    (Kind.WRITE_OFF, lambda fund: fund.write_off("m", "1", 5, "why"), {"reason": "why"}),
    (
        Kind.ADJUSTMENT,
        lambda fund: fund.adjust("m", "1", 5, "credit", "why", "ann"),
        {"direction": "credit", "person": "ann"},
    ),
    (Kind.CHANNEL_COST, lambda fund: fund.channel_cost("1", "c", 5, "CNY"), {"channel": "c"}),
    (
        Kind.BANK_DIFFERENCE,
        lambda fund: fund.bank_difference("1", "c", 5, "CNY", "more", "why"),
        {"direction": "more"},
    ),
    (Kind.REVERSAL, lambda fund: fund.reverse("1", "payment", "p", "why", "m"), {"merchant": "m", "of_order_no": "p"}),
    (Kind.REVERSAL, lambda fund: fund.reverse("1", "channel_cost", "p", "why"), {"merchant": "platform"}),
    (
        Kind.ADJUSTMENT,
        lambda fund: fund.adjust("m", "1", 5, "debit", "why", against="short"),
        {"direction": "debit", "against": "short", "person": None},
    ),
    (
        Kind.OWN_TRANSFER,
        lambda fund: fund.own_transfer("1", "a", "b", 5, "CNY", "ref", "ticket"),
        {"from_channel": "a", "channel": "b", "from_ref": "ref", "ticket": "ticket"},
    ),
    (
        Kind.OWN_FUNDS,
        lambda fund: fund.own_funds("1", "c", 5, "CNY", "out", "why", "ref"),
        {"direction": "out", "reason": "why", "channel_ref": "ref"},
    ),
    (Kind.FEE_SWEEP, lambda fund: fund.sweep_fees("1", "c", 5, "CNY", "why", "ref"), {"channel_ref": "ref"}),
    (
        Kind.PAYABLE_PAYMENT,
        lambda fund: fund.pay_payable("1", "c", 5, "CNY", channel_ref="ref", reason="why"),
        {"channel_ref": "ref", "reason": "why"},
    ),
    (
        Kind.SUSPENSE_CLEARING,
        lambda fund: fund.clear_suspense("1", 5, "CNY", "more", "merchant", "why", "m"),
        {"direction": "more", "against": "merchant", "merchant": "m", "channel": None},
    ),
    (
        Kind.SUSPENSE_CLEARING,
        lambda fund: fund.clear_suspense("1", 5, "CNY", "more", "bank", "why", channel="c"),
        {"against": "bank", "merchant": "platform", "channel": "c"},
    ),
    (
        Kind.PARKED_CLEARING,
        lambda fund: fund.clear_parked("1", "payment", "m", "p", "merchant", "why", "n"),
        {"of_kind": "payment", "of_merchant": "m", "of_order_no": "p", "against": "merchant", "merchant": "n"},
    ),
    (Kind.TOP_UP, lambda fund: fund.top_up("m", "1", 5, "CNY", "c", "ref"), {"channel": "c", "channel_ref": "ref"}),
    (Kind.TRANSFER, lambda fund: fund.transfer("m", "1", "n", 5, "why"), {"to_merchant": "n", "reason": "why"}),
    (Kind.RESERVE_HOLD, lambda fund: fund.hold_reserve("m", "1", 5, "why"), {"amount": 5, "reason": "why"}),
    (Kind.RESERVE_RELEASE, lambda fund: fund.release_reserve("m", "1", 5, "why"), {"amount": 5, "reason": "why"}),
    (Kind.DISPUTE, lambda fund: fund.open_dispute("m", "1", "p", 5, "why"), {"payment_order_no": "p", "reason": "why"}),
    (
        Kind.DISPUTE_WON,
        lambda fund: fund.win_back("m", "1", "c", 5, "dispute", "ref"),
        {"chargeback_order_no": "c", "of_kind": "dispute", "channel_ref": "ref"},
    ),
    (
        Kind.DISPUTE_FEE,
        lambda fund: fund.charge_dispute_fee("m", "1", 5, "c", "bank", "ref", "why"),
        {"channel": "c", "against": "bank", "channel_ref": "ref", "reason": "why"},
    ),
    (
        Kind.SPLIT_PAYMENT,
        lambda fund: fund.split_pay("1", 5, "CNY", "c", PARTS, "ref", "mall", "ticket"),
        {
            "merchant": "mall",
            "channel_ref": "ref",
            "ticket": "ticket",
            "parts": msgspec.convert(PAID, list[SplitPaymentPart]),
        },
    ),
    (Kind.SPLIT_PAYMENT, lambda fund: fund.split_pay("1", 5, "CNY", "c", PARTS), {"merchant": "platform"}),
    (
        Kind.SPLIT_REFUND,
        lambda fund: fund.split_refund("1", "p", parts=[SplitPart("a", 2)], merchant="mall"),
        {"merchant": "mall", "of_order_no": "p", "amount": 2, "parts": [SplitRefundPart("a", 2)]},
    ),
    (Kind.SPLIT_REFUND, lambda fund: fund.split_refund("1", "p", 5), {"amount": 5, "parts": None}),
    (
        Kind.SPLIT_CHARGEBACK,
        lambda fund: fund.split_charge_back("1", "p", 5, channel_ref="ref"),
        {"merchant": "platform", "of_order_no": "p", "amount": 5, "channel_ref": "ref"},
    ),
    (
        Kind.CHANNEL_INVOICE,
        lambda fund: fund.channel_invoice("1", "c", 5, "CNY", "INV-1", "2026-01"),
        {"channel": "c", "invoice_no": "INV-1", "period": "2026-01"},
    ),
    (
        Kind.PAYABLE_PAYMENT,
        lambda fund: fund.pay_payable("1", "c", 5, "CNY", invoice_order_no="i"),
        {"invoice_order_no": "i", "against": "channel"},
    ),
    (
        Kind.PAYABLE_PAYMENT,
        lambda fund: fund.pay_payable("1", "c", 5, "CNY", "tax"),
        {"against": "tax", "invoice_order_no": None},
    ),
]


@pytest.mark.parametrize(("kind", "call", "members"), REQUESTED, ids=[row[0] for row in REQUESTED])
async def test_a_request_is_one_that_the_service_takes(kind: Kind, call: Call, members: dict[str, Any]) -> None:
    async with Stub(Say(201, ORDER)) as stub, FundService(stub.url, "t") as fund:
        order = await call(fund)
        asked = stub.asked[0]
        assert (asked.method, asked.path) == ("POST", PATHS[kind.value])
        request = msgspec.json.decode(asked.body, type=REQUESTS[kind])
        assert request.order_no == "1"
        assert {name: getattr(request, name) for name in members} == members
        assert (order.id, order.state, order.net, order.is_certain, order.replay) == (ID, "posted", 99, True, False)


def test_every_kind_of_order_has_its_path_and_is_tried() -> None:
    assert set(PATHS) == {kind.value for kind in Kind}
    assert {row[0] for row in REQUESTED} == set(Kind)


async def test_a_merchant_is_one_that_the_service_takes() -> None:
    shown = {
        "id": "m",
        "name": "M",
        "currency": "CNY",
        "created_at": "2026-01-31T12:00:00Z",
        "accounts": ["a"],
        "fee": None,
        "balances": {"a": {"posted": 1, "held": 0, "pending": 0, "available": 1}},
    }
    async with Stub(Say(200, shown, {"Idempotent-Replay": "true"})) as stub, FundService(stub.url, "t") as fund:
        merchant = await fund.create_merchant("m", "M", "CNY", Fee(basis_points=60), withdrawal_limit=0)
        assert (merchant.id, merchant.accounts, merchant.replay) == ("m", ["a"], True)
        assert merchant.balances["a"].available == 1
        request = msgspec.json.decode(stub.asked[0].body, type=MerchantRequest)
        assert request.fee is not None
        assert (request.fee.basis_points, request.withdrawal_fee, request.withdrawal_limit) == (60, None, 0)


@pytest.mark.parametrize(
    ("call", "path", "body"),
    [
        (lambda fund: fund.withdrawal_paid(ID, "ref"), f"/v1/withdrawals/{ID}/paid", {"channel_ref": "ref"}),
        (lambda fund: fund.withdrawal_bounced(ID, "why"), f"/v1/withdrawals/{ID}/bounced", {"reason": "why"}),
        (lambda fund: fund.split_refund_paid(ID, "ref"), f"/v1/split-refunds/{ID}/paid", {"channel_ref": "ref"}),
        (lambda fund: fund.split_refund_bounced(ID, "no"), f"/v1/split-refunds/{ID}/bounced", {"reason": "no"}),
        (lambda fund: fund.own_transfer_paid(ID, "ref"), f"/v1/own-transfers/{ID}/paid", {"channel_ref": "ref"}),
        (lambda fund: fund.own_transfer_bounced(ID, "why"), f"/v1/own-transfers/{ID}/bounced", {"reason": "why"}),
        (lambda fund: fund.dispute_won(ID), f"/v1/disputes/{ID}/won", {}),
        (lambda fund: fund.dispute_lost(ID, "ref"), f"/v1/disputes/{ID}/lost", {"channel_ref": "ref"}),
        (lambda fund: fund.dispute_lost(ID), f"/v1/disputes/{ID}/lost", {}),
        (lambda fund: fund.approve(ID, "bob"), f"/v1/adjustments/{ID}/approve", {"person": "bob"}),
        (lambda fund: fund.approve(ID), f"/v1/adjustments/{ID}/approve", {}),
    ],
)
async def test_the_outcome_of_an_order_is_at_its_path(call: Call, path: str, body: dict[str, str]) -> None:
    async with Stub(Say(200, ORDER, {"Idempotent-Replay": "true"})) as stub, FundService(stub.url, "t") as fund:
        assert (await call(fund)).replay
        assert (stub.asked[0].path, msgspec.json.decode(stub.asked[0].body)) == (path, body)


async def test_a_fee_rule_is_one_that_the_service_takes() -> None:
    rule = FeeRule(product="payment", channel="c", basis_points=60, effective_at=datetime(2026, 1, 31, tzinfo=UTC))
    change = {"id": str(ID), "kind": "fee_rule", "subject": "m payment c", "body": {}, "state": "waiting"}
    change |= {"maker": "t", "made_at": "2026-01-31T12:00:00.000000Z"}
    async with Stub(Say(202, change)) as stub, FundService(stub.url, "t") as fund:
        assert (await fund.add_fee_rule("m", rule)).state == "waiting"
        assert stub.asked[0].path == "/v1/merchants/m/fees"
        assert msgspec.json.decode(stub.asked[0].body) == {
            "product": "payment",
            "channel": "c",
            "basis_points": 60,
            "effective_at": "2026-01-31T00:00:00Z",
        }


async def test_a_refused_order_is_distinguished_from_a_refused_request() -> None:
    refusal = {"type": "urn:fundledger:problem:insufficient-funds", "status": 422, "detail": "d"}
    refused = {**ORDER, "state": "refused", "problem": refusal}
    kept = Say(422, {**refusal, "order": refused}, {"Content-Type": "application/problem+json"})
    says = [kept, Say(200, refused, {"Idempotent-Replay": "true"}), problem(422, "order-no-reused")]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        with pytest.raises(OrderRefused) as error:
            await fund.withdraw("m", "1", 5, "c")
        assert (error.value.order.state, error.value.problem.code) == ("refused", "insufficient-funds")
        assert error.value.order.problem is not None
        with pytest.raises(OrderRefused) as repeat:
            await fund.withdraw("m", "1", 5, "c")
        assert (repeat.value.order.replay, repeat.value.problem.code) == (True, "insufficient-funds")
        with pytest.raises(Refused) as other:
            await fund.withdraw("m", "1", 5, "c")
        assert type(other.value) is Refused


async def test_payments_are_answered_one_by_one() -> None:
    results = [
        {"order_no": "1", "state": "posted", "id": str(ID)},
        {"order_no": "2", "state": "refused", "problem": {"type": "x"}},
    ]
    async with Stub(Say(200, {"results": results})) as stub, FundService(stub.url, "t") as fund:
        one, two = await fund.pay_many([Payment("m", number, 5, "CNY", "c") for number in "12"])
        assert (one.state, one.id, two.state) == ("posted", ID, "refused")
        assert two.problem is not None
        assert stub.asked[0].path == "/v1/payments/batch"
        decoded = msgspec.json.decode(stub.asked[0].body)
        assert [msgspec.convert(each, REQUESTS[Kind.PAYMENT]).order_no for each in decoded["payments"]] == ["1", "2"]
        assert await fund.pay_many([]) == []


async def test_an_order_is_waited_for_until_it_is_certain_whatever_happens_meanwhile() -> None:
    posting = {**ORDER, "state": "posting"}
    says = [Say(202, posting), Say(200, posting), CUT, problem(503, "unavailable", Retry_After="0"), Say(200, ORDER)]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        order = await fund.pay("m", "1", 5, "CNY", "c")
        assert not order.is_certain
        assert (await fund.wait_until_settled(order)).state == "posted"
        assert {asked.path for asked in stub.asked[1:]} == {f"/v1/payments/{ID}"}


async def test_an_order_that_stays_uncertain_is_an_unknown_outcome() -> None:
    async with Stub(Say(200, {**ORDER, "state": "posting"})) as stub, FundService(stub.url, "t") as fund:
        order = await fund.pay("m", "1", 5, "CNY", "c")
        with pytest.raises(OutcomeUnknown):
            await fund.wait_until_settled(order, timeout_s=0.02)


async def test_waiting_ends_immediately_when_the_caller_is_not_allowed_to_read() -> None:
    says = [Say(202, {**ORDER, "state": "posting"}), problem(401, "unauthorized")]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        order = await fund.pay("m", "1", 5, "CNY", "c")
        with pytest.raises(Unauthorized):
            await fund.wait_until_settled(order)


async def test_lists_go_on_over_all_their_pages() -> None:
    says = [
        Say(200, {"orders": [ORDER, ORDER], "next_cursor": "x y"}),
        Say(200, {"orders": [ORDER], "next_cursor": None}),
    ]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        assert len([order async for order in fund.orders("payment", "m", "posted", limit=2)]) == 3
        assert [asked.path for asked in stub.asked] == [
            "/v1/payments?merchant=m&limit=2&state=posted",
            "/v1/payments?merchant=m&limit=2&state=posted&cursor=x+y",
        ]


async def test_lists_over_all_merchants_send_only_the_filters_that_are_given() -> None:
    orders = Say(200, {"orders": [{**ORDER, "fee_version": 3}], "next_cursor": None})
    async with Stub(orders, orders) as stub, FundService(stub.url, "t") as fund:
        at = datetime(2026, 1, 31, tzinfo=UTC)
        found = [order async for order in fund.all_orders("m", "payment", "posted", at, at, "c", "r", 5, limit=2)]
        assert [(order.fee_version, order.fee_waived) for order in found] == [(3, 0)]
        assert [order async for order in fund.all_orders()] == found
        assert [asked.path for asked in stub.asked] == [
            (
                "/v1/orders?merchant=m&kind=payment&state=posted&channel=c&channel_ref=r&from=2026-01-31T00%3A00%3A00%2B00%3A00"
                "&to=2026-01-31T00%3A00%3A00%2B00%3A00&amount=5&limit=2"
            ),
            "/v1/orders?limit=500",
        ]


async def test_a_bill_is_read_page_by_page() -> None:
    amounts = {"available": 1, "pending": 0, "receivable": 0}
    line = {
        "posted_at": "2026-01-31T12:00:00Z",
        "voucher_id": str(ID),
        "type": "pay",
        "change": amounts,
        "balance": amounts,
    }
    page = {
        "merchant": "m",
        "currency": "CNY",
        "begins": "2026-01-31T00:00:00Z",
        "ends": "2026-02-01T00:00:00Z",
        "opening": amounts,
        "closing": amounts,
        "lines": [line],
    }
    says = [Say(200, {**page, "next_cursor": "0.a.0..0."}), Say(200, {**page, "next_cursor": None})]
    async with Stub(*says) as stub, FundService(stub.url, "t") as fund:
        pages = [page async for page in fund.bill("m", date(2026, 1, 31), limit=1)]
        assert [page.lines[0].change.available for page in pages] == [1, 1]
        assert [asked.path for asked in stub.asked] == [
            "/v1/merchants/m/bill?day=2026-01-31&limit=1",
            "/v1/merchants/m/bill?day=2026-01-31&limit=1&cursor=0.a.0..0.",
        ]


async def test_a_history_and_an_order_by_its_names_are_read() -> None:
    steps = {
        "id": str(ID),
        "history": [
            {"state": "posting", "at": "2026-01-31T12:00:00Z"},
            {"state": "posted", "at": "2026-01-31T12:00:01Z", "detail": {"a": 1}},
        ],
    }
    async with (
        Stub(Say(200, steps), Say(200, ORDER), problem(404, "not-found")) as stub,
        FundService(stub.url, "t") as fund,
    ):
        history = await fund.history("payment", ID)
        assert [(step.state, step.detail) for step in history] == [("posting", None), ("posted", {"a": 1})]
        found = await fund.find_order("payment", "m", "1")
        assert found is not None
        assert found.id == ID
        assert await fund.find_order("payment", "m", "2") is None
        assert [asked.path for asked in stub.asked][:2] == [
            f"/v1/payments/{ID}/history",
            "/v1/payments?merchant=m&order_no=1",
        ]
