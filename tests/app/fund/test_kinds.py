"""Own money, suspense, disputes and merchants' money over HTTP: from the request to the end, for modules and persons."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fundledger.app.fund.service import FundService
from fundledger.fund.model.person import Role
from fundledger.fund.store.persons import add_person
from tests.app.fund.test_orders import is_order
from tests.support.answers import is_problem
from tests.support.client import Answer, Client
from tests.support.currencies import unused_currency
from tests.support.database import Databases
from tests.support.fund_books import prove_fund
from tests.support.fund_http import OTHER_TOKEN, FundClient, a_fund_service
from tests.support.running import RunningService

CURRENCY = unused_currency()
"""A currency of these tests alone, because all tests share the accounts of the platform."""
PERSONS = {"maker": Role.MAKER, "checker": Role.CHECKER, "operator": Role.OPERATOR, "auditor": Role.AUDITOR}


class Desk:
    """A fund service whose books are proved after each test, with the callers of this file."""

    def __init__(self, service: FundService, fund: FundClient, other: FundClient) -> None:
        self.service, self.fund, self.other = service, fund, other
        self.a, self.b = f"a-{fund.salt}", f"b-{fund.salt}"
        fund.channel = self.a

    def number(self, name: str) -> str:
        return f"{name}-{self.fund.salt}"

    async def shop(self, name: str = "m", balance: int = 0, **more: Any) -> str:
        shop = await self.fund.shop(name, currency=CURRENCY, **more)
        if balance:
            paid = await self.fund.paid(shop, f"first-{name}", balance, currency=CURRENCY, channel_ref=f"f-{name}")
            assert is_order(paid, 201, "posted")
        return shop

    async def approve(self, path: str, created: Answer) -> Answer:
        assert is_order(created, 201, "created")
        return await self.other.post(f"/v1/{path}/{created.json['id']}/approve")

    async def approved(self, path: str, body: dict[str, Any], **members: Any) -> dict[str, Any]:
        answer = await self.approve(path, await self.fund.post(f"/v1/{path}", body))
        assert is_order(answer, 200, "posted", approved_by="others", **members)
        return answer.json

    async def states(self, path: str, id_: str) -> list[str]:
        history = await self.fund.get(f"/v1/{path}/{id_}/history")
        return [step["state"] for step in history.json["history"]]

    def own(self, name: str, amount: int, **more: Any) -> dict[str, Any]:
        return {"order_no": self.number(name), "channel": self.a, "amount": amount, "currency": CURRENCY, **more}


@pytest.fixture
async def desk(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Desk]:
    dsn = await postgres.new_fund()
    async with (
        a_fund_service(dsn, tmp_path_factory.mktemp("fund"), service) as (running, url),
        FundClient(url) as fund,
        FundClient(url, OTHER_TOKEN) as other,
    ):
        yield Desk(running, fund, other)
        salt = fund.salt
    await prove_fund(dsn, service.dsn, salt)
    await postgres.drop(dsn)


# --- Own money ------------------------------------------------------------------------------------------------------


async def test_own_money_goes_from_one_bank_to_another(desk: Desk) -> None:
    await desk.shop(balance=1_000, fee={"fixed": 100})
    body = desk.own("t", 600, channel=desk.b, from_channel=desk.a, from_ref="OUT")
    created = await desk.fund.post("/v1/own-transfers", body)
    assert is_order(created, 201, "created", merchant="platform", channel=desk.b, counterparty=desk.a, net=0)
    assert created.json["counter_ref"] == "OUT"
    path = f"/v1/own-transfers/{created.json['id']}"
    for end, sent in (("paid", {"channel_ref": "IN"}), ("bounced", {"reason": "r"})):
        assert is_problem(await desk.fund.post(f"{path}/{end}", sent), 422, "order-not-posted")
    assert is_order(await desk.approve("own-transfers", created), 200, "posted")
    repeat = await desk.fund.post("/v1/own-transfers", body)
    assert is_order(repeat, 200, "posted")
    assert repeat.is_replay
    paid = await desk.fund.post(f"{path}/paid", {"channel_ref": "IN"})
    assert is_order(paid, 200, "paid", channel_ref="IN", ending="paid")
    assert (await desk.fund.post(f"{path}/paid", {"channel_ref": "IN"})).is_replay
    assert is_problem(await desk.fund.post(f"{path}/paid", {"channel_ref": "X"}), 422, "order-ended")
    assert is_problem(await desk.fund.post(f"{path}/bounced", {"reason": "r"}), 422, "order-ended")
    foreign = f"/v1/withdrawals/{created.json['id']}"
    assert is_problem(await desk.fund.post(f"{foreign}/paid", {"channel_ref": "X"}), 404, "not-found")
    assert await desk.states("own-transfers", created.json["id"]) == ["created", "posting", "posted", "paid"]
    found = await desk.fund.get(f"/v1/own-transfers?order_no={body['order_no']}")
    assert found.json == paid.json
    taken = desk.own("u", 1, channel_ref="OUT", direction="out", reason="r")
    assert is_problem(await desk.fund.post("/v1/own-funds", taken), 422, "own-funds-exceeded")


async def test_own_funds_fees_and_payables_leave_only_as_far_as_they_are_there(desk: Desk) -> None:
    shop = await desk.shop(balance=1_000, fee={"fixed": 100})
    await desk.approved("own-funds", desk.own("in", 50, direction="in", reason="r"), kind="own_funds", direction="in")
    much = desk.own("much", 51, direction="out", reason="r")
    assert is_problem(await desk.fund.post("/v1/own-funds", much), 422, "own-funds-exceeded")
    out = await desk.approved("own-funds", desk.own("out", 50, direction="out", reason="r"))
    assert (out["counterparty"], out["direction"]) == (desk.a, "out")
    much = desk.own("sweep", 10**15, reason="r")
    assert is_problem(await desk.fund.post("/v1/fee-sweeps", much), 422, "sweep-exceeds-income")
    await desk.approved("fee-sweeps", desk.own("sweep", 100, reason="fees"), kind="fee_sweep", reason="fees")
    fee = {"merchant": shop, "order_no": "f", "amount": 30, "channel": desk.a, "against": "payable"}
    assert is_order(await desk.fund.post("/v1/dispute-fees", fee), 201, "posted", against="payable", net=-30)
    assert is_problem(await desk.fund.post("/v1/payable-payments", desk.own("p", 31)), 422, "payable-exceeded")
    await desk.approved("payable-payments", desk.own("p", 30), kind="payable_payment")
    assert await desk.fund.has(shop) == (870, 0, 0)


async def test_an_order_of_own_money_is_rejected_and_moves_nothing(desk: Desk) -> None:
    await desk.shop(balance=1_000)
    for path, body in (
        ("own-transfers", desk.own("t", 600, channel=desk.b, from_channel=desk.a)),
        ("own-funds", desk.own("i", 600, direction="in", reason="r")),
    ):
        created = await desk.fund.post(f"/v1/{path}", body)
        rejected = await desk.other.post(f"/v1/{path}/{created.json['id']}/reject", {"reason": "no"})
        assert is_order(rejected, 200, "rejected")
        assert is_problem(await desk.approve(path, created), 422, "order-rejected")
        assert is_problem(await desk.fund.post(f"/v1/{path}/{created.json['id']}/approve"), 422, "order-rejected")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("own-transfers", {"from_channel": "a", "channel": "a"}),
        ("own-funds", {"channel": "a", "direction": "more", "reason": "r"}),
        ("suspense-clearings", {"direction": "less", "against": "income", "reason": "r"}),
        ("suspense-clearings", {"direction": "more", "against": "bank", "reason": "r"}),
        ("suspense-clearings", {"direction": "more", "against": "merchant", "reason": "r"}),
        ("suspense-clearings", {"direction": "more", "against": "income", "reason": "r", "merchant": "m"}),
        ("top-ups", {"merchant": "m", "channel": "a", "currency": "XXQ"}),
        ("own-funds", {"channel": "a", "direction": "in", "reason": "r", "currency": "XXQ"}),
    ],
)
async def test_a_body_that_contradicts_itself_is_malformed(fund: FundClient, path: str, body: dict[str, Any]) -> None:
    answer = await fund.post(f"/v1/{path}", {"order_no": "x", "amount": 1, "currency": "CNY", **body})
    assert answer.status == 400, answer


async def test_an_own_transfer_names_two_registered_channels(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dsn = await postgres.new_fund()
    folder = tmp_path_factory.mktemp("fund")
    async with a_fund_service(dsn, folder, service, every_channel=False) as (_, url), FundClient(url) as fund:
        for members in (
            {"from_channel": "typo", "channel": "simulator"},
            {"from_channel": "simulator", "channel": "x"},
        ):
            answer = await fund.post("/v1/own-transfers", {"order_no": "t", "amount": 1, "currency": "CNY", **members})
            assert is_problem(answer, 422, "channel-not-found"), members
            assert "simulator" in answer.json["detail"]
    await postgres.drop(dsn)


# --- Persons --------------------------------------------------------------------------------------------------------


async def test_persons_request_approve_and_end_own_money_by_their_roles(desk: Desk) -> None:
    await desk.shop(balance=1_000)
    service, now = desk.service, datetime(2026, 3, 1, tzinfo=UTC)
    for name, role in PERSONS.items():
        assert await add_person(service.pool, service.macs, name, [role], "tests", now, f"token-of-{name}")
    await service.persons.look()
    url = desk.fund.base_url
    async with (
        FundClient(url, "token-of-maker") as maker,
        FundClient(url, "token-of-checker") as checker,
        FundClient(url, "token-of-operator") as operator,
        FundClient(url, "token-of-auditor") as auditor,
    ):
        body = desk.own("t", 600, channel=desk.b, from_channel=desk.a)
        for person in (checker, operator, auditor):
            assert is_problem(await person.post("/v1/own-transfers", body), 403, "role-missing")
        created = await maker.post("/v1/own-transfers", body)
        assert is_order(created, 201, "created")
        path = f"/v1/own-transfers/{created.json['id']}"
        for person in (maker, operator, auditor):
            assert is_problem(await person.post(f"{path}/approve"), 403, "role-missing")
        assert is_order(await checker.post(f"{path}/approve"), 200, "posted", approved_by="person:checker")
        for person in (maker, checker, auditor):
            assert is_problem(await person.post(f"{path}/paid", {"channel_ref": "IN"}), 403, "role-missing")
        assert is_order(await operator.post(f"{path}/paid", {"channel_ref": "IN"}), 200, "paid")
        assert is_order(await auditor.get(path), 200, "paid")


# --- Suspense and parked orders -------------------------------------------------------------------------------------


async def test_a_difference_is_explained_by_a_clearing_and_closed_by_an_adjustment(desk: Desk) -> None:
    shop = await desk.shop()
    more = {"direction": "more", "reason": "r"}
    await desk.approved("bank-differences", desk.own("d", 70, **more))
    slip = {"amount": 40, "currency": CURRENCY, **more, "against": "merchant", "merchant": shop}
    cleared = await desk.approved("suspense-clearings", {**slip, "order_no": "s"}, merchant=shop, net=40)
    assert cleared["against"] == "merchant"
    adjusted = {"merchant": shop, "order_no": "a", "amount": 30, "direction": "credit", "reason": "r"}
    await desk.approved("adjustments", {**adjusted, "against": "over"}, against="over")
    assert await desk.fund.has(shop) == (70, 0, 0)
    mine = await desk.fund.get(f"/v1/suspense-clearings?merchant={shop}")
    assert [order["order_no"] for order in mine.json["orders"]] == ["s"]


async def test_a_parked_payment_of_a_closed_merchant_is_cleared(desk: Desk, client: Client) -> None:
    shop, other = await desk.shop(), await desk.shop("other")
    for name in ("available", "pending", "receivable"):
        assert (
            await client.post(f"/v1/accounts/merchant:{shop}:{name}/freeze", {"reason": "court", "scope": "all"})
        ).status == 200
    parked = await desk.fund.paid(shop, "p", 90, currency=CURRENCY, channel_ref="P")
    assert is_order(parked, 201, "parked")
    slip = {"order_no": "k", "of_kind": "payment", "of_merchant": shop, "of_order_no": "p", "reason": "r"}
    slip |= {"against": "merchant", "merchant": other}
    cleared = await desk.approved("parked-clearings", slip, amount=90, merchant=other, of_kind="payment", net=90)
    payment = await desk.fund.get(f"/v1/payments/{parked.json['id']}")
    assert is_order(payment, 200, "cleared", reversed_by=cleared["id"])
    assert await desk.states("payments", parked.json["id"]) == ["created", "posting", "parked", "cleared"]
    assert (await desk.fund.has(other), await desk.fund.has(shop)) == ((90, 0, 0), (0, 0, 0))
    assert is_problem(await desk.fund.post("/v1/parked-clearings", {**slip, "order_no": "k2"}), 422, "order-not-parked")
    retried = await desk.fund.post(f"/v1/payments/{parked.json['id']}/retry")
    assert is_order(retried, 200, "cleared")
    for name in ("available", "pending", "receivable"):
        assert (await client.post(f"/v1/accounts/merchant:{shop}:{name}/unfreeze")).status == 200


# --- Disputes and merchants' money ----------------------------------------------------------------------------------


async def test_a_dispute_is_opened_and_won_or_lost(desk: Desk) -> None:
    shop = await desk.shop(balance=1_000)
    ids = []
    for number, amount in (("d1", 300), ("d2", 200)):
        body = {"merchant": shop, "order_no": number, "payment_order_no": "first-m", "amount": amount, "reason": "r"}
        opened = await desk.fund.post("/v1/disputes", body)
        assert is_order(opened, 201, "posted", kind="dispute", net=-amount, reason="r")
        ids.append(opened.json["id"])
    assert await desk.fund.has(shop) == (500, 0, 0)
    shown = (await desk.fund.get(f"/v1/merchants/{shop}")).json["balances"]
    assert shown[f"merchant:{shop}:disputed"]["posted"] == 500
    won = await desk.fund.post(f"/v1/disputes/{ids[0]}/won")
    assert is_order(won, 200, "won", ending="won")
    assert (await desk.fund.post(f"/v1/disputes/{ids[0]}/won", {})).is_replay
    assert is_problem(await desk.fund.post(f"/v1/disputes/{ids[0]}/lost", {}), 422, "order-ended")
    lost = await desk.fund.post(f"/v1/disputes/{ids[1]}/lost", {"channel_ref": "CB"})
    assert is_order(lost, 200, "lost", channel_ref="CB")
    assert await desk.fund.has(shop) == (800, 0, 0)
    win = {"merchant": shop, "order_no": "w", "chargeback_order_no": "d2", "of_kind": "dispute", "amount": 201}
    assert is_problem(await desk.fund.post("/v1/dispute-wins", win), 422, "win-exceeds-chargeback")
    won = await desk.fund.post("/v1/dispute-wins", {**win, "amount": 200, "channel_ref": "BACK"})
    assert is_order(won, 201, "posted", of_order=ids[1], of_kind="dispute", net=200)
    fee = {"merchant": shop, "order_no": "f", "amount": 1_500, "channel": desk.a}
    assert is_order(await desk.fund.post("/v1/dispute-fees", fee), 201, "posted", to_receivable=500, net=-1_500)
    assert await desk.fund.has(shop) == (0, 0, 500)


async def test_money_of_merchants_moves_without_a_payment(desk: Desk) -> None:
    shop, other = await desk.shop(), await desk.shop("other")
    up = {"merchant": shop, "order_no": "t", "amount": 500, "currency": CURRENCY, "channel": desk.a, "channel_ref": "T"}
    assert is_order(await desk.fund.post("/v1/top-ups", up), 201, "posted", fee=0, net=500)
    assert is_problem(await desk.fund.post("/v1/top-ups", {**up, "order_no": "again"}), 422, "receipt-already-booked")
    move = {"merchant": shop, "order_no": "v", "to_merchant": other, "amount": 200}
    moved = await desk.fund.post("/v1/transfers", move)
    assert is_order(moved, 201, "posted", counterparty=other, net=-200)
    assert is_problem(await desk.fund.post("/v1/transfers", {**move, "amount": 201}), 422, "order-no-reused")
    refused = await desk.fund.post("/v1/transfers", {**move, "order_no": "v2", "amount": 301})
    assert is_problem(refused, 422, "insufficient-funds")
    assert refused.json["order"]["counterparty"] == other
    for path in ("reserve-holds", "reserve-releases"):
        order = await desk.fund.post(f"/v1/{path}", {"merchant": shop, "order_no": "h", "amount": 300})
        assert is_order(order, 201, "posted")
        shown = (await desk.fund.get(f"/v1/merchants/{shop}")).json["balances"]
        assert shown[f"merchant:{shop}:reserve"]["posted"] == (300 if path == "reserve-holds" else 0)
    assert (await desk.fund.has(shop), await desk.fund.has(other)) == ((300, 0, 0), (200, 0, 0))
    listed = await desk.fund.get(f"/v1/orders?merchant={shop}")
    assert [order["kind"] for order in listed.json["orders"]] == [
        *("top_up", "transfer", "transfer", "reserve_hold", "reserve_release")
    ]


async def test_the_events_of_a_dispute_name_its_states(desk: Desk) -> None:
    shop = await desk.shop(balance=100)
    body = {"merchant": shop, "order_no": "d", "payment_order_no": "first-m", "amount": 100}
    id_ = (await desk.fund.post("/v1/disputes", body)).json["id"]
    assert (await desk.fund.post(f"/v1/disputes/{id_}/lost", {"channel_ref": "CB"})).status == 200
    events = (await desk.fund.get("/v1/events?after=0")).json["events"]
    told = [event["type"] for event in events if event["merchant"] == shop and event["type"].startswith("dispute")]
    assert told == ["dispute.posted", "dispute.lost"]
