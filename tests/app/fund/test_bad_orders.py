"""Invalid orders are refused with their problem type and field, and have no effect; no input gets a 5xx."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from fundledger.app.fund.routes import ROUTES
from tests.support.answers import is_problem
from tests.support.client import Answer, new_id
from tests.support.fund_http import FundClient
from tests.support.fund_ids import order_id


class Scene(NamedTuple):
    """Two merchants, each with a payment of 1,000: order `paid` of the first, order `foreign` of the other."""

    fund: FundClient
    merchant: str
    other: str


@pytest.fixture
async def scene(fund: FundClient) -> Scene:
    merchant, other = await fund.shop(withdrawal_limit=5_000), await fund.shop("other")
    assert (await fund.paid(merchant, "paid", 1_000)).status == 201
    assert (await fund.paid(other, "foreign", 1_000)).status == 201
    return Scene(fund, merchant, other)


CHANNEL = {"amount": 5, "channel": "c"}
PAYMENT = {**CHANNEL, "currency": "CNY"}
REVERSAL = {"of_kind": "payment", "reason": "r"}
ADJUSTMENT = {"amount": 5, "direction": "credit", "reason": "r"}

REFUSED: dict[str, tuple[str, dict[str, Any], str, str | None]] = {
    "payment to an unknown merchant": ("payments", {**PAYMENT, "merchant": "nobody"}, "merchant-not-found", None),
    "payment to the platform": ("payments", {**PAYMENT, "merchant": "platform"}, "merchant-not-found", None),
    "payment in another currency": ("payments", {**PAYMENT, "currency": "USD"}, "currency-mismatch", None),
    "payment with another amount": ("payments", {**PAYMENT, "order_no": "paid"}, "order-no-reused", "order_no"),
    "refund of an unknown payment": ("refunds", {"payment_order_no": "none", "amount": 1}, "payment-not-found", None),
    "refund of a foreign payment": ("refunds", {"payment_order_no": "foreign", "amount": 1}, "payment-not-found", None),
    "refund above the payment": (
        "refunds",
        {"payment_order_no": "paid", "amount": 1_001},
        "refund-exceeds-payment",
        "amount",
    ),
    "refund of an unknown merchant": (
        "refunds",
        {"merchant": "nobody", "payment_order_no": "paid", "amount": 1},
        "merchant-not-found",
        None,
    ),
    "chargeback of a foreign payment": (
        "chargebacks",
        {"payment_order_no": "foreign", "amount": 1},
        "payment-not-found",
        None,
    ),
    "chargeback above the payment": (
        "chargebacks",
        {"payment_order_no": "paid", "amount": 1_001},
        "chargeback-exceeds-payment",
        "amount",
    ),
    "settlement of nothing": ("settlements", {}, "nothing-to-settle", None),
    "withdrawal above the balance": ("withdrawals", {**CHANNEL, "amount": 1_001}, "insufficient-funds", None),
    "withdrawal above the day's limit": (
        "withdrawals",
        {**CHANNEL, "amount": 5_001},
        "withdrawal-limit-exceeded",
        "amount",
    ),
    "withdrawal of an unknown merchant": (
        "withdrawals",
        {**CHANNEL, "merchant": "nobody"},
        "merchant-not-found",
        None,
    ),
    "recovery of what is not owed": ("recoveries", {"amount": 1}, "debt-exceeded", "amount"),
    "write-off of what is not owed": ("write-offs", {"amount": 1, "reason": "r"}, "debt-exceeded", "amount"),
    "adjustment of an unknown merchant": (
        "adjustments",
        {**ADJUSTMENT, "merchant": "nobody"},
        "merchant-not-found",
        None,
    ),
    "return of an unknown payout": (
        "payout-returns",
        {"withdrawal_order_no": "none", "amount": 1, "channel_ref": "b"},
        "withdrawal-not-found",
        "withdrawal_order_no",
    ),
    "return of a foreign payment": (
        "payout-returns",
        {"withdrawal_order_no": "foreign", "amount": 1, "channel_ref": "b"},
        "withdrawal-not-found",
        "withdrawal_order_no",
    ),
    "reversal of a foreign return": (
        "reversals",
        {**REVERSAL, "of_kind": "payout_return", "of_order_no": "foreign"},
        "order-not-found",
        None,
    ),
    "reversal of an unknown order": ("reversals", {**REVERSAL, "of_order_no": "none"}, "order-not-found", None),
    "refund of an unknown split payment": (
        "split-refunds",
        {"of_order_no": "none", "amount": 1},
        "payment-not-found",
        "of_order_no",
    ),
    "split refund of a payment": (
        "split-refunds",
        {"of_order_no": "paid", "amount": 1},
        "payment-not-found",
        "of_order_no",
    ),
    "refund of a foreign split payment": (
        "split-refunds",
        {"of_order_no": "foreign", "amount": 1},
        "payment-not-found",
        "of_order_no",
    ),
    "chargeback of an unknown split payment": (
        "split-chargebacks",
        {"of_order_no": "none", "amount": 1},
        "payment-not-found",
        "of_order_no",
    ),
    "split payment to an unknown merchant": (
        "split-payments",
        {**PAYMENT, "parts": [{"merchant": "nobody", "amount": 2}, {"merchant": "platform", "amount": 3}]},
        "merchant-not-found",
        "parts",
    ),
    "reversal of a foreign order": ("reversals", {**REVERSAL, "of_order_no": "foreign"}, "order-not-found", None),
    "top-up in another currency": ("top-ups", {**PAYMENT, "currency": "USD"}, "currency-mismatch", None),
    "top-up of an unknown merchant": ("top-ups", {**PAYMENT, "merchant": "nobody"}, "merchant-not-found", None),
    "transfer to nobody": ("transfers", {"to_merchant": "nobody", "amount": 1}, "merchant-not-found", "to_merchant"),
    "reserve above the balance": ("reserve-holds", {"amount": 1_001}, "insufficient-funds", None),
    "release of nothing": ("reserve-releases", {"amount": 1}, "reserve-exceeded", "amount"),
    "dispute of a foreign payment": (
        "disputes",
        {"payment_order_no": "foreign", "amount": 1},
        "payment-not-found",
        None,
    ),
    "dispute above the payment": (
        "disputes",
        {"payment_order_no": "paid", "amount": 1_001},
        "chargeback-exceeds-payment",
        "amount",
    ),
    "win of an unknown chargeback": (
        "dispute-wins",
        {"chargeback_order_no": "paid", "amount": 1},
        "order-not-found",
        "chargeback_order_no",
    ),
    "win of a foreign chargeback": (
        "dispute-wins",
        {"chargeback_order_no": "foreign", "amount": 1},
        "order-not-found",
        "chargeback_order_no",
    ),
    "clearing of suspense that is not there": (
        "suspense-clearings",
        {"amount": 1 << 52, "currency": "CNY", "direction": "more", "against": "merchant", "reason": "r"},
        "suspense-exceeded",
        "amount",
    ),
    "clearing for a merchant of another currency": (
        "suspense-clearings",
        {"amount": 1, "currency": "USD", "direction": "more", "against": "merchant", "reason": "r"},
        "currency-mismatch",
        None,
    ),
    "adjustment that closes more than the item": (
        "adjustments",
        {**ADJUSTMENT, "amount": 1 << 52, "against": "over"},
        "suspense-exceeded",
        "amount",
    ),
    "clearing of an order of nobody": (
        "parked-clearings",
        {"of_kind": "payment", "of_merchant": "nobody", "of_order_no": "x", "against": "merchant", "reason": "r"},
        "merchant-not-found",
        "of_merchant",
    ),
}


BY_THE_ACCOUNT_SERVICE = {"insufficient-funds"}
"""Refusals by the account service, after the order was inserted as `posting`. A replay returns it with its problem."""


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_has_its_problem_and_moves_nothing(scene: Scene, case: str) -> None:
    fund, merchant, other = scene
    path, members, code, field = REFUSED[case]
    sent = {"merchant": merchant, "order_no": "x", **members}
    for _ in range(2):
        answer = await fund.post(f"/v1/{path}", sent)
        if answer.is_replay:
            # The account service has refused the order: the order exists and stays refused.
            assert (answer.status, answer.json["state"]) == (200, "refused")
            assert code in BY_THE_ACCOUNT_SERVICE
            assert answer.json["problem"]["type"].endswith(f":{code}")
        else:
            assert is_problem(answer, 422, code)
            assert field is None or answer.json["field"] == field
            if "foreign" in sent.values():
                # The answer contains nothing of the other merchant's order: neither its amount, in any format, nor its
                # name.
                shown = json.dumps(answer.json)
                assert not re.search(r"1[,. _]?000|10\.00", shown), shown
                assert other not in shown
    assert await fund.has(merchant) == (1_000, 0, 0)
    assert await fund.has(other) == (1_000, 0, 0)


GOOD: Mapping[str, dict[str, Any]] = {
    "payments": PAYMENT,
    "refunds": {"payment_order_no": "paid", "amount": 1},
    "settlements": {},
    "withdrawals": CHANNEL,
    "payout-returns": {"withdrawal_order_no": "w", "amount": 1, "channel_ref": "b"},
    "chargebacks": {"payment_order_no": "paid", "amount": 1},
    "recoveries": {"amount": 1},
    "write-offs": {"amount": 1, "reason": "r"},
    "adjustments": ADJUSTMENT,
    "channel-costs": PAYMENT,
    "bank-differences": {**PAYMENT, "direction": "more", "reason": "r"},
    "reversals": {**REVERSAL, "of_order_no": "paid"},
    "own-transfers": {**PAYMENT, "from_channel": "b"},
    "own-funds": {**PAYMENT, "direction": "in", "reason": "r"},
    "fee-sweeps": {**PAYMENT, "reason": "r"},
    "payable-payments": PAYMENT,
    "suspense-clearings": {
        "amount": 5,
        "currency": "CNY",
        "direction": "more",
        "against": "income",
        "reason": "r",
    },
    "parked-clearings": {
        "of_kind": "payment",
        "of_merchant": "m",
        "of_order_no": "paid",
        "against": "income",
        "reason": "r",
    },
    "top-ups": PAYMENT,
    "transfers": {"to_merchant": "n", "amount": 1},
    "reserve-holds": {"amount": 1},
    "reserve-releases": {"amount": 1},
    "disputes": {"payment_order_no": "paid", "amount": 1},
    "dispute-wins": {"chargeback_order_no": "c", "amount": 1},
    "dispute-fees": CHANNEL,
    "split-payments": {**PAYMENT, "parts": [{"merchant": "a", "amount": 2}, {"merchant": "b", "amount": 3}]},
    "split-refunds": {"of_order_no": "paid", "amount": 5},
    "split-chargebacks": {"of_order_no": "paid", "amount": 5},
    "channel-invoices": {**PAYMENT, "invoice_no": "I", "period": "2026-01"},
}
OF_PLATFORM = {
    *("channel-costs", "bank-differences", "own-transfers", "own-funds", "fee-sweeps"),
    *("payable-payments", "suspense-clearings", "parked-clearings", "channel-invoices"),
}
OPTIONAL = ("reversals", "settlements", "withdrawals", "split-payments", "split-refunds", "split-chargebacks")
"""Paths of orders that need no merchant, or no amount. `of_merchant` is the platform by default."""
BAD_MEMBERS: list[tuple[str, Any]] = [
    ("order_no", ""),
    ("order_no", "a b"),
    ("order_no", "x" * 65),
    ("order_no", 5),
    ("order_no", None),
    ("merchant", "a:b"),
    ("merchant", ""),
    ("amount", 0),
    ("amount", -1),
    ("amount", 1.5),
    ("amount", "5"),
    ("amount", 1 << 53),
    ("amount", True),
    ("currency", "cny"),
    ("channel", "a:b"),
    ("direction", "up"),
    ("reason", ""),
    ("reason", "a\x00b"),
    ("of_kind", "refund"),
    ("of_kind", "withdrawal"),
    ("withdrawal_order_no", "a b"),
    ("channel_ref", ""),
    ("channel_ref", "a\x00b"),
    ("channel_ref", None),
    ("ticket", "t" * 1025),
    ("ticket", "a\x00b"),
    ("period", "2026-13"),
    ("invoice_no", ""),
    ("parts", []),
    ("parts", 5),
    ("unknown", 1),
]


SPLIT = {"order_no": "x", "of_order_no": "p"}
PARTS = [{"merchant": "a", "amount": 1}, {"merchant": "b", "amount": 1}]
PAYEE = {"holder": "H", "currency": "CNY"}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/withdrawals", {"merchant": "m", "order_no": "x", "channel": "c"}, "amount"),
        ("/v1/withdrawals", {"merchant": "m", "order_no": "x", "channel": "c", "amount": 1, "all": True}, "amount"),
        ("/v1/withdrawals/batch", {"withdrawals": [{"merchant": "m", "order_no": "x", "channel": "c"}]}, None),
        ("/v1/settlements", {"merchant": "m", "order_no": "x", "day": "0001-01-01"}, "day"),
        ("/v1/transfers", {"merchant": "m", "order_no": "x", "to_merchant": "m", "amount": 1}, "to_merchant"),
        ("/v1/split-refunds", SPLIT, "amount"),
        ("/v1/split-refunds", {**SPLIT, "amount": 3, "parts": PARTS}, "parts"),
        ("/v1/split-refunds", {**SPLIT, "amount": 2, "parts": PARTS[:1] * 2}, "parts"),
        ("/v1/holidays", {"region": "CNY", "days": [{"day": "2026-01-01"}] * 2}, "days"),
        ("/v1/holidays", {"region": "CNY", "days": [{"day": "0001-01-01"}]}, "days[0].day"),
        (
            "/v1/merchants",
            {"id": "m", "name": "M", "currency": "CNY", "fee": {"minimum": 2, "maximum": 1}},
            "fee.maximum",
        ),
        ("/v1/merchants/m/payees", PAYEE, "iban"),
        ("/v1/merchants/m/payees", {**PAYEE, "iban": "DE89370400440532013001"}, "iban"),
        ("/v1/merchants/m/payees", {**PAYEE, "iban": "DE89370400440532013000", "account": "1"}, "account"),
        ("/v1/merchants/m/payees", {**PAYEE, "account": "12345678"}, "bank_code"),
    ],
)
async def test_a_rule_over_several_members_names_one_of_them(
    fund: FundClient, path: str, body: dict[str, Any], field: str | None
) -> None:
    answer = await fund.post(path, body)
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == (field or "withdrawals[0].amount")


@pytest.mark.parametrize("path", GOOD)
async def test_each_member_of_an_order_is_checked_and_named(fund: FundClient, path: str) -> None:
    good = {"merchant": "m", "order_no": "x", **GOOD[path]}
    if path in OF_PLATFORM:
        del good["merchant"]
    for member, value in BAD_MEMBERS:
        if member in good or member in ("unknown", "ticket"):
            answer = await fund.post(f"/v1/{path}", {**good, member: value})
            assert is_problem(answer, 400, "malformed"), (member, value)
            assert answer.json["field"] == member
    for member in good:
        if member != "of_merchant" and (member not in ("merchant", "amount") or path not in OPTIONAL):
            answer = await fund.post(f"/v1/{path}", {n: v for n, v in good.items() if n != member})
            assert is_problem(answer, 400, "malformed"), member
            assert answer.json["field"] == member


PATHS = {route.template: route.body_bytes_max for route in ROUTES if route.method == "POST"}


@pytest.mark.parametrize("path", PATHS)
async def test_an_invalid_body_is_refused_at_every_path(fund: FundClient, path: str) -> None:
    large = b" " * (PATHS[path] + 1)
    path = path.replace("{id}", str(order_id("none", "none", "none")))
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"body": b"{"}, 400, "malformed"),
        ({"body": b"[1]"}, 400, "malformed"),
        ({"body": b'{"a":1,"a":2}'}, 400, "malformed"),
        ({"body": b"\xff"}, 400, "malformed"),
        ({"body": b"[" * 5_000}, 400, "malformed"),
        ({"body": large}, 413, "body-too-large"),
        ({"body": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported-media-type"),
        ({"body": b"{}", "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported-media-type"),
        ({"body": b"{}", "headers": {"Authorization": "Bearer nobody"}}, 401, "unauthorized"),
    ]
    for sent, status, problem in cases:
        assert is_problem(await fund.post(path, **sent), status, problem), sent


async def test_paths_and_methods_that_are_not_there(fund: FundClient) -> None:
    assert is_problem(await fund.get("/v1/nothing"), 404, "not-found")
    wrong = await fund.request("DELETE", "/v1/payments")
    assert is_problem(wrong, 405, "method-not-allowed")
    assert wrong.headers["Allow"] == "GET, POST"
    assert is_problem(await fund.get("/v1/events?after=x"), 400, "malformed")
    assert is_problem(await fund.get("/v1/events?wait_s=31"), 400, "malformed")
    assert is_problem(await fund.get("/v1/merchants/a:b"), 400, "malformed")


Ask = Callable[[FundClient, str], Any]
BY_ID: dict[str, Ask] = {
    "get": lambda fund, id_: fund.get(f"/v1/withdrawals/{id_}"),
    "history": lambda fund, id_: fund.get(f"/v1/withdrawals/{id_}/history"),
    "paid": lambda fund, id_: fund.post(f"/v1/withdrawals/{id_}/paid", {"channel_ref": "x"}),
    "bounced": lambda fund, id_: fund.post(f"/v1/withdrawals/{id_}/bounced", {"reason": "x"}),
    "own transfer paid": lambda fund, id_: fund.post(f"/v1/own-transfers/{id_}/paid", {"channel_ref": "x"}),
    "own transfer bounced": lambda fund, id_: fund.post(f"/v1/own-transfers/{id_}/bounced", {"reason": "x"}),
    "dispute won": lambda fund, id_: fund.post(f"/v1/disputes/{id_}/won", {}),
    "dispute lost": lambda fund, id_: fund.post(f"/v1/disputes/{id_}/lost", {"channel_ref": "x"}),
    "approve own funds": lambda fund, id_: fund.post(f"/v1/own-funds/{id_}/approve", {}),
    "reject a clearing": lambda fund, id_: fund.post(f"/v1/suspense-clearings/{id_}/reject", {"reason": "x"}),
    "refund": lambda fund, id_: fund.get(f"/v1/refunds/{id_}"),
    "refund paid": lambda fund, id_: fund.post(f"/v1/refunds/{id_}/paid", {"channel_ref": "x"}),
    "refund bounced": lambda fund, id_: fund.post(f"/v1/refunds/{id_}/bounced", {"reason": "x"}),
    "payout return": lambda fund, id_: fund.get(f"/v1/payout-returns/{id_}"),
    "approve": lambda fund, id_: fund.post(f"/v1/adjustments/{id_}/approve", {}),
    "reject": lambda fund, id_: fund.post(f"/v1/reversals/{id_}/reject", {"reason": "x"}),
    "approve a change": lambda fund, id_: fund.post(f"/v1/changes/{id_}/approve", {}),
    "reject a change": lambda fund, id_: fund.post(f"/v1/changes/{id_}/reject", {"reason": "x"}),
}


@pytest.mark.parametrize("ask", BY_ID.values(), ids=BY_ID)
async def test_an_id_that_is_nobodys_or_of_another_kind_is_not_found(scene: Scene, ask: Ask) -> None:
    payment = str(order_id("payment", scene.merchant, "paid"))
    for id_, status, problem in (
        (new_id(), 404, "not-found"),
        (payment, 404, "not-found"),
        ("x", 400, "malformed"),
        (payment.replace("-", ""), 400, "malformed"),
    ):
        answer: Answer = await ask(scene.fund, id_)
        assert is_problem(answer, status, problem)
    assert await scene.fund.has(scene.merchant) == (1_000, 0, 0)


async def test_a_withdrawal_that_was_refused_cannot_end(scene: Scene) -> None:
    refused = {**CHANNEL, "merchant": scene.merchant, "order_no": "w", "amount": 1_001}
    id_ = (await scene.fund.post("/v1/withdrawals", refused)).json["order"]["id"]
    for ask in (BY_ID["paid"], BY_ID["bounced"]):
        assert is_problem(await ask(scene.fund, id_), 422, "withdrawal-not-posted")


async def test_a_refund_that_was_refused_cannot_end(scene: Scene) -> None:
    drawn = {**CHANNEL, "merchant": scene.merchant, "order_no": "w", "amount": 1_000}
    assert (await scene.fund.post("/v1/withdrawals", drawn)).status == 201
    refused = {"merchant": scene.merchant, "order_no": "r", "payment_order_no": "paid", "amount": 1}
    id_ = (await scene.fund.post("/v1/refunds", refused)).json["order"]["id"]
    for ask in (BY_ID["refund paid"], BY_ID["refund bounced"]):
        assert is_problem(await ask(scene.fund, id_), 422, "refund-not-posted")
