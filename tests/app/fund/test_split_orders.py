"""Split payments, taxes and invoices of channels over HTTP: what each merchant sees, and what is refused."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from fundledger.client import FundService
from fundledger.client.fund_types import SplitPart
from tests.app.fund.test_lists import CSV, table, walk
from tests.support.answers import is_problem
from tests.support.client import Answer
from tests.support.endpoint import Endpoint
from tests.support.fund_http import OTHER_TOKEN, FundClient
from tests.support.running import RunningService
from tests.support.waiting import eventually

TAXED = {"basis_points": 100, "tax_basis_points": 600, "tax_mode": "added"}


class Mall:
    """A marketplace with two shops, the first of which has a fee with tax."""

    def __init__(self, fund: FundClient) -> None:
        self.fund = fund
        self.mall = self.shop = self.carrier = ""

    async def begin(self) -> "Mall":
        self.mall = await self.fund.shop("mall")
        self.shop = await self.fund.shop("shop", fee=TAXED)
        self.carrier = await self.fund.shop("carrier")
        return self

    def no(self, number: str) -> str:
        return f"{number}-{self.fund.salt}"

    def payment(self, number: str, shop: int = 10_000, carrier: int = 2_000, **more: Any) -> dict[str, Any]:
        parts = [{"merchant": self.shop, "amount": shop}, {"merchant": self.carrier, "amount": carrier}]
        named = {"merchant": self.mall, "order_no": self.no(number), "amount": shop + carrier, "currency": "CNY"}
        return {**named, "channel": f"c-{self.fund.salt}", "parts": parts, **more}

    async def pay(self, number: str, **more: Any) -> Answer:
        return await self.fund.post("/v1/split-payments", self.payment(number, **more))

    async def back(self, path: str, number: str, of: str, **more: Any) -> Answer:
        named = {"merchant": self.mall, "order_no": self.no(number), "of_order_no": self.no(of)}
        return await self.fund.post(f"/v1/{path}", {**named, **more})


@pytest.fixture
async def mall(fund: FundClient) -> Mall:
    return await Mall(fund).begin()


async def test_an_order_shows_each_part_and_their_sums(mall: Mall) -> None:
    answer = await mall.pay("p", channel_ref="R")
    assert answer.status == 201, answer
    order = answer.json
    assert (order["merchant"], order["amount"], order["fee"], order["tax"], order["net"]) == (
        *(mall.mall, 12_000),
        *(106, 6, 11_894),
    )
    version = order["parts"][0].pop("fee_version")
    assert isinstance(version, int)
    assert order["parts"] == [
        {"merchant": mall.shop, "amount": 10_000, "fee": 106, "net": 9_894, "tax": 6},
        {"merchant": mall.carrier, "amount": 2_000, "fee": 0, "net": 2_000},
    ]
    assert await mall.fund.has(mall.shop) == (9_894, 0, 0)
    assert await mall.fund.has(mall.mall) == (0, 0, 0)
    shown = (await mall.fund.get(f"/v1/split-payments/{order['id']}")).json
    assert {**shown, "parts": None} == {**order, "parts": None}
    named = await mall.fund.get(f"/v1/split-payments?merchant={mall.mall}&order_no={mall.no('p')}")
    assert named.json == shown
    history = (await mall.fund.get(f"/v1/split-payments/{order['id']}/history")).json
    assert [one["state"] for one in history["history"]] == ["created", "posting", "posted"]


async def test_the_same_request_is_answered_with_the_same_order(mall: Mall) -> None:
    first = await mall.pay("p")
    again = await mall.pay("p")
    assert (again.status, again.is_replay, again.json) == (200, True, first.json)
    swapped = mall.payment("p")
    swapped["parts"].reverse()
    assert is_problem(await mall.fund.post("/v1/split-payments", swapped), 422, "order-no-reused")
    divided = mall.payment("p", 9_999, 2_001)
    assert is_problem(await mall.fund.post("/v1/split-payments", divided), 422, "order-no-reused")
    # The number belongs to the owner: the platform and another marketplace have their own.
    for owner in ({"merchant": mall.shop}, {"merchant": "platform"}):
        assert (await mall.fund.post("/v1/split-payments", {**mall.payment("p"), **owner})).status == 201
    of_platform = {name: value for name, value in mall.payment("p").items() if name != "merchant"}
    assert (await mall.fund.post("/v1/split-payments", of_platform)).is_replay
    assert await mall.fund.has(mall.carrier) == (6_000, 0, 0)


BAD: dict[str, dict[str, Any]] = {
    "no parts": {"parts": []},
    "one part": {"parts": [{"merchant": "a", "amount": 12_000}]},
    "parts that do not sum to the amount": {"amount": 11_999},
    "an amount of nothing": {"amount": 0},
    "an amount beyond all": {"amount": 2**53},
    "parts that are no list": {"parts": {}},
    "parts that are nothing": {"parts": None},
    "a part that is no object": {"parts": [1, 2]},
    "a part with an unknown member": {"parts": [{"merchant": "a", "amount": 1, "fee": 1}] * 2},
    "an unknown member": {"settle": "later"},
    "a channel that cannot be": {"channel": "a:b"},
    "an owner that cannot be": {"merchant": "a:b"},
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_no_split_payment_moves_nothing(mall: Mall, case: str) -> None:
    answer = await mall.pay("p", **BAD[case])
    assert is_problem(answer, 400, "malformed"), answer
    assert await mall.fund.has(mall.carrier) == (0, 0, 0)


@pytest.mark.parametrize(
    "part", [{"amount": 0}, {"amount": -1}, {"amount": 1.5}, {"commission": 12_001}, {"merchant": ""}]
)
async def test_what_is_no_part_moves_nothing(mall: Mall, part: dict[str, Any]) -> None:
    sent = mall.payment("p")
    sent["parts"][0].update(part)
    assert is_problem(await mall.fund.post("/v1/split-payments", sent), 400, "malformed")
    assert await mall.fund.has(mall.carrier) == (0, 0, 0)


async def test_a_refund_of_a_foreign_order_finds_nothing(mall: Mall) -> None:
    assert (await mall.pay("p")).status == 201
    for owner in (mall.shop, "platform"):
        for path in ("split-refunds", "split-chargebacks"):
            answer = await mall.back(path, "r", "p", amount=1, merchant=owner)
            assert is_problem(answer, 422, "payment-not-found")
            assert "12" not in answer.json["detail"].replace(mall.no("p"), "").replace(owner, "")
    # A split payment is no payment, and a payment is no split payment.
    refund = {"merchant": mall.mall, "order_no": "r", "payment_order_no": mall.no("p"), "amount": 1}
    assert is_problem(await mall.fund.post("/v1/refunds", refund), 422, "payment-not-found")
    assert (await mall.fund.paid(mall.mall, mall.no("whole"), 100)).status == 201
    assert is_problem(await mall.back("split-refunds", "r", "whole", amount=1), 422, "payment-not-found")


async def test_refunds_and_chargebacks_are_divided_and_bounded(mall: Mall) -> None:
    assert (await mall.pay("p")).status == 201
    answer = await mall.back("split-refunds", "r", "p", amount=600)
    assert answer.status == 201, answer
    assert [(part["amount"], part["fee"]) for part in answer.json["parts"]] == [(500, 5), (100, 0)]
    named = [{"merchant": mall.carrier, "amount": 1_901}]
    more = await mall.back("split-refunds", "r2", "p", parts=named)
    assert is_problem(more, 422, "refund-exceeds-payment")
    assert more.json["field"] == "parts"
    for sent in ({}, {"amount": 5, "parts": named}, {"parts": []}, {"amount": None}):
        assert is_problem(await mall.back("split-refunds", "r3", "p", **sent), 400, "malformed")
    back = await mall.back("split-chargebacks", "c", "p", parts=[{"merchant": mall.carrier, "amount": 1_900}])
    assert back.status == 201
    rest = await mall.back("split-refunds", "r4", "p", amount=9_500)
    assert [(part["merchant"], part["amount"], part["fee"], part["tax"]) for part in rest.json["parts"]] == [
        (mall.shop, 9_500, 101, 6)
    ]
    assert await mall.fund.has(mall.shop) == (0, 0, 0)
    assert await mall.fund.has(mall.carrier) == (0, 0, 0)


async def test_each_merchant_finds_its_part_in_lists_and_in_its_bill(mall: Mall) -> None:
    fund = mall.fund
    payment = (await mall.pay("p")).json
    refund = (await mall.back("split-refunds", "r", "p", parts=[{"merchant": mall.shop, "amount": 1_000}])).json
    expected = {
        mall.shop: [payment["id"], refund["id"]],
        mall.carrier: [payment["id"]],
        mall.mall: [payment["id"], refund["id"]],
    }
    for merchant, ids in expected.items():
        for limit in (1, 100):
            listed = await walk(fund, f"/v1/orders?merchant={merchant}", "orders", limit)
            assert [order["id"] for order in listed] == ids
            of_kind = await walk(fund, f"/v1/split-payments?merchant={merchant}", "orders", limit)
            assert [order["id"] for order in of_kind] == ids[:1]
        posted = (await fund.get(f"/v1/split-payments?merchant={merchant}&state=posted")).json["orders"]
        assert [order["id"] for order in posted] == ids[:1]
        assert (await fund.get(f"/v1/split-payments?merchant={merchant}&state=stuck")).json["orders"] == []
    rows = table(await fund.get(f"/v1/orders?merchant={mall.carrier}", headers=CSV))
    assert json.loads(rows[0]["parts"])[1]["merchant"] == mall.carrier
    day = datetime.now(UTC).date().isoformat()
    bills = {merchant: (await fund.get(f"/v1/merchants/{merchant}/bill?day={day}")).json for merchant in expected}
    lines = {
        merchant: [(line["kind"], line["order_no"], line["amount"], line["fee"], line["tax"]) for line in bill["lines"]]
        for merchant, bill in bills.items()
    }
    assert lines == {
        mall.shop: [
            ("split_payment", mall.no("p"), 10_000, 106, 6),
            ("split_refund", mall.no("r"), 1_000, -10, 0),
        ],
        mall.carrier: [("split_payment", mall.no("p"), 2_000, 0, 0)],
        mall.mall: [],
    }
    assert bills[mall.shop]["closing"]["available"] == 9_894 - 990


async def test_an_event_shows_a_merchant_its_own_part_only(platform: RunningService) -> None:
    salt = uuid4().hex[:8]
    one, two, owner = (f"{name}-{salt}" for name in ("one", "two", "owner"))
    async with FundService(platform.fund_url, platform.token) as there, Endpoint() as endpoint, Endpoint() as whole:
        for merchant in (one, two, owner):
            await there.create_merchant(merchant, merchant, "CNY")
        hooks = [await there.create_webhook(one, endpoint.url), await there.create_webhook(owner, whole.url)]
        try:
            parts = [SplitPart(one, 300), SplitPart(two, 77_777)]
            paid = await there.split_pay("p", 78_077, "CNY", "simulator", parts, merchant=owner)
            await there.split_refund("r", "p", parts=[SplitPart(two, 55_555)], merchant=owner)
            await there.split_refund("r2", "p", parts=[SplitPart(one, 100)], merchant=owner)
            # The refunds are sent later, and have further events then.
            await eventually(lambda: len(endpoint.got) >= 2, "both events come")
            await eventually(lambda: len(whole.got) >= 3, "the owner gets all")
        finally:
            for hook in hooks:
                await there.disable_webhook(hook.id, "the test is over")
    events = [msgspec.json.decode(body) for _, body in endpoint.got]
    assert [(event["type"], event["order"]["amount"]) for event in events[:2]] == [
        ("split_payment.posted", 300),
        ("split_refund.posted", 100),
    ]
    assert {event["type"] for event in events[2:]} <= {"split_refund.sent", "split_refund.paid"}
    assert {part["merchant"] for event in events for part in event["order"]["parts"]} == {one}
    text = b"".join(body for _, body in endpoint.got)
    assert two.encode() not in text
    assert b"77777" not in text
    assert b"78077" not in text
    assert msgspec.json.decode(whole.got[0][1])["order"]["id"] == str(paid.id)
    assert two.encode() in whole.got[0][1]


async def test_a_rule_has_its_tax_and_says_whether_refunds_return_the_fee(fund: FundClient) -> None:
    shop = await fund.shop(fee=TAXED)
    shown = (await fund.get(f"/v1/merchants/{shop}")).json["fees"][0]
    assert {name: shown[name] for name in ("currency", "tax_basis_points", "tax_mode", "return")} == {
        "currency": "CNY",
        "tax_basis_points": 600,
        "tax_mode": "added",
        "return": "proportional",
    }
    rule = {"product": "payment", "channel": "other", "fixed": 5, "return": "none", "tax_basis_points": 10_000}
    made = await fund.post(f"/v1/merchants/{shop}/fees", rule)
    assert made.status == 202
    assert (await fund.approve(made)).json["state"] == "applied"
    kept = next(one for one in (await fund.get(f"/v1/merchants/{shop}")).json["fees"] if one["channel"] == "other")
    assert (kept["return"], kept["tax_mode"], kept["tax_basis_points"]) == ("none", "included", 10_000)
    for wrong in ({"return": "all"}, {"tax_mode": "on top"}, {"tax_basis_points": 10_001}, {"tax_basis_points": -1}):
        answer = await fund.post(f"/v1/merchants/{shop}/fees", {**rule, **wrong})
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == next(iter(wrong))


async def test_a_batch_of_payments_charges_the_tax_of_each(fund: FundClient) -> None:
    taxed, plain = await fund.shop("taxed", fee=TAXED), await fund.shop("plain")
    payments = [fund.payment(merchant, str(i), 1_000) for i in range(5) for merchant in (taxed, plain)]
    answer = await fund.post("/v1/payments/batch", {"payments": payments})
    assert answer.status == 200
    assert {one["state"] for one in answer.json["results"]} == {"posted"}
    orders = (await fund.get(f"/v1/payments?merchant={taxed}")).json["orders"]
    assert [(order["fee"], order["tax"]) for order in orders] == [(11, 1)] * 5
    assert all("tax" not in order for order in (await fund.get(f"/v1/payments?merchant={plain}")).json["orders"])
    assert await fund.has(taxed) == (4_945, 0, 0)


async def test_an_invoice_is_paid_by_two_people_and_read_by_its_number(fund: FundClient) -> None:
    number = f"i-{fund.salt}"
    sent = {"order_no": number, "channel": f"c-{fund.salt}", "amount": 4_200, "currency": "CNY"}
    sent |= {"invoice_no": "INV-1", "period": "2026-11"}
    made = await fund.post("/v1/channel-invoices", sent)
    assert made.status == 201, made
    assert (made.json["invoice_no"], made.json["period"], made.json["merchant"]) == ("INV-1", "2026-11", "platform")
    assert "channel_ref" not in made.json
    assert (await fund.post("/v1/channel-invoices", sent)).is_replay
    again = await fund.post("/v1/channel-invoices", {**sent, "order_no": f"j-{fund.salt}"})
    assert is_problem(again, 422, "receipt-already-booked")
    assert again.json["field"] == "invoice_no"
    found = (await fund.get(f"/v1/orders?channel=c-{fund.salt}&channel_ref=INV-1")).json["orders"]
    assert [order["id"] for order in found] == [made.json["id"]]
    other = {**sent, "order_no": f"k-{fund.salt}", "invoice_no": "INV-2"}
    assert (await fund.post("/v1/channel-invoices", other)).status == 201
    payment = {"order_no": f"p-{fund.salt}", "invoice_order_no": number, "amount": 4_200, "channel_ref": "OUT-1"}
    payment |= {"channel": f"c-{fund.salt}", "currency": "CNY"}
    waits = await fund.post("/v1/payable-payments", payment)
    assert (waits.status, waits.json["state"], waits.json["period"]) == (201, "created", "2026-11")
    path = f"/v1/payable-payments/{waits.json['id']}"
    assert is_problem(await fund.post(f"{path}/approve"), 422, "approval-needs-another")
    async with FundClient(fund.base_url, OTHER_TOKEN) as other:
        done = await other.post(f"{path}/approve")
        assert (done.status, done.json["state"], done.json["approved_by"]) == (200, "posted", "others")
        assert (await other.post(f"{path}/approve")).is_replay
    more = await fund.post("/v1/payable-payments", {**payment, "order_no": f"q-{fund.salt}", "channel_ref": "O2"})
    assert is_problem(more, 422, "invoice-exceeded")
    for wrong in ({"period": "2026-13"}, {"invoice_no": ""}, {"amount": 0}):
        answer = await fund.post("/v1/channel-invoices", {**sent, **wrong})
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == next(iter(wrong))
