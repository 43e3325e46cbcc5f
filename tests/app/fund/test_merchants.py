"""Changes of merchants, their history and their end, holidays, due days, and withdrawals of all, over HTTP."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fundledger.fund.model.person import Role
from fundledger.fund.store.persons import add_person
from tests.support.answers import is_problem
from tests.support.database import Databases
from tests.support.fund_http import FundClient, a_fund_service
from tests.support.running import RunningService

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROLES = {"maker": [Role.MAKER], "checker": [Role.CHECKER], "operator": [Role.OPERATOR], "auditor": [Role.AUDITOR]}


@pytest.fixture(scope="module")
async def running(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, str]]:
    """Return the DSN and the URL of a fund service with persons."""
    dsn = await postgres.new_fund()
    async with a_fund_service(dsn, tmp_path_factory.mktemp("fund"), service) as (fund, url):
        for name, roles in ROLES.items():
            assert await add_person(fund.pool, fund.macs, name, roles, "tests", NOW, f"token-of-{name}")
        await fund.persons.look()
        yield dsn, url
    await postgres.drop(dsn)


@pytest.fixture
async def fund(running: tuple[str, str]) -> AsyncIterator[FundClient]:
    async with FundClient(running[1]) as client:
        yield client


async def by(fund: FundClient, name: str, method: str, path: str, body: bytes = b"") -> Any:
    """Send a request as a person."""
    return await fund.request(method, path, body or None, {"Authorization": f"Bearer token-of-{name}"})


async def shown(fund: FundClient, merchant: str) -> dict[str, Any]:
    answer = await fund.get(f"/v1/merchants/{merchant}")
    assert answer.status == 200, answer
    return dict(answer.json)


async def test_a_patch_by_one_identity_answers_the_merchant(fund: FundClient) -> None:
    merchant = await fund.shop(settlement="daily", settlement_cut="17:00", settlement_days=1)
    before = await shown(fund, merchant)
    assert (before["state"], before["settlement_days"], before["settlement_cut"]) == ("open", 1, "17:00")
    changed = await fund.patch(f"/v1/merchants/{merchant}", {"name": "New", "settlement_days": None, "why": "w"})
    assert (changed.status, changed.json["name"], changed.json["settlement_days"]) == (200, "New", None)
    assert await shown(fund, merchant) == changed.json
    assert changed.json["settlement_cut"] == "17:00"
    # The merchant is still the one that was created.
    again = {"id": merchant, "name": "m", "currency": "CNY", "settlement": "daily"}
    again |= {"settlement_cut": "17:00", "settlement_days": 1}
    replay = await fund.post("/v1/merchants", again)
    assert (replay.status, replay.json["name"]) == (200, "New")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"why": "nothing else"},
        {"currency": "USD"},
        {"state": "closed"},
        {"settlement_days": -1},
        {"settlement_days": 61},
        {"settlement_days": 1.5},
        {"settlement_cut": "24:00"},
        {"settlement_cut": "17:00:01"},
        {"settlement_cut": "5:00"},
        {"settlement_region": ""},
        {"settlement_region": "a b"},
        {"settlement": "hourly"},
        {"settlement": None},
        {"name": ""},
        {"name": None},
        {"withdrawal_limit": -1},
        {"withdrawal_limit": 2**53},
        {"fee": None},
        {"fee": {"minimum": 5, "maximum": 4}},
    ],
)
async def test_a_patch_that_is_malformed_changes_nothing(fund: FundClient, body: dict[str, Any]) -> None:
    merchant = await fund.shop()
    before = await shown(fund, merchant)
    assert is_problem(await fund.patch(f"/v1/merchants/{merchant}", body), 400, "malformed")
    assert await shown(fund, merchant) == before
    assert len((await fund.get(f"/v1/merchants/{merchant}/history")).json["history"]) == 1


async def test_a_patch_of_money_waits_for_another_identity(fund: FundClient) -> None:
    merchant = await fund.shop(withdrawal_limit=5)
    path = f"/v1/merchants/{merchant}"
    change = await fund.patch(path, {"withdrawal_limit": 0, "name": "New"})
    assert (change.status, change.json["kind"], change.json["state"]) == (202, "merchant", "waiting")
    assert change.json["body"] == {"name": "New", "withdrawal_limit": 0}
    assert (await shown(fund, merchant))["withdrawal_limit"] == 5
    assert is_problem(await fund.patch(path, {"withdrawal_limit": 9}), 409, "change-waiting")
    assert (await fund.patch(path, {"withdrawal_limit": 0, "name": "New"})).json["id"] == change.json["id"]
    alone = await fund.post(f"/v1/changes/{change.json['id']}/approve")
    assert is_problem(alone, 422, "approval-needs-another")
    assert is_problem(await by(fund, "maker", "POST", f"/v1/changes/{change.json['id']}/approve"), 403, "role-missing")
    assert (await fund.approve(change)).json["state"] == "applied"
    found = await shown(fund, merchant)
    assert (found["withdrawal_limit"], found["name"]) == (0, "New")
    assert is_problem(await fund.patch("/v1/merchants/nobody", {"withdrawal_limit": 9}), 404, "not-found")
    assert is_problem(await fund.patch("/v1/merchants/nobody", {"name": "x"}), 404, "not-found")


async def test_who_may_suspend_resume_and_close(fund: FundClient) -> None:
    merchant = await fund.shop()
    path, body = f"/v1/merchants/{merchant}", b'{"reason": "case 17"}'
    for step in ("suspend", "resume", "close"):
        for name in ("maker", "auditor"):
            assert is_problem(await by(fund, name, "POST", f"{path}/{step}", body), 403, "role-missing")
        assert is_problem(await fund.post(f"{path}/{step}", {}), 400, "malformed")
        assert is_problem(await fund.post(f"/v1/merchants/nobody/{step}", {"reason": "r"}), 404, "not-found")
    for name in ("checker", "operator"):
        suspended = await by(fund, name, "POST", f"{path}/suspend", body)
        assert (suspended.status, suspended.json["state"]) == (200, "suspended")
        resumed = await by(fund, name, "POST", f"{path}/resume", body)
        assert (resumed.status, resumed.json["state"]) == (200, "open")
    assert is_problem(await by(fund, "auditor", "PATCH", path, b'{"name": "x"}'), 403, "role-missing")
    assert (await by(fund, "auditor", "GET", f"{path}/history")).status == 200
    told = (await fund.get(f"{path}/history?limit=2&cursor=1")).json
    assert (told["id"], [event["version"] for event in told["history"]]) == (merchant, [2, 3])
    assert told["next_cursor"] == "3"
    first = told["history"][0]
    assert (first["what"], first["by"], first["why"]) == ("suspended", "person:checker", "case 17")
    assert first["changes"] == {"state": {"from": "open", "to": "suspended"}}
    last = (await fund.get(f"{path}/history?limit=500")).json
    assert (len(last["history"]), last["next_cursor"]) == (5, None)
    assert is_problem(await fund.get("/v1/merchants/nobody/history"), 404, "not-found")
    assert is_problem(await fund.get(f"{path}/history?cursor=x"), 400, "malformed")


async def test_orders_of_a_suspended_merchant_are_refused(fund: FundClient) -> None:
    merchant = await fund.shop(balance=100)
    await fund.post(f"/v1/merchants/{merchant}/suspend", {"reason": "case 17"})
    members = {"merchant": merchant, "order_no": "w", "channel": f"c-{fund.salt}", "amount": 5}
    for path, body in (
        ("withdrawals", members),
        ("refunds", {"merchant": merchant, "order_no": "r", "payment_order_no": "first-m", "amount": 5}),
        ("settlements", {"merchant": merchant, "order_no": "s"}),
    ):
        assert is_problem(await fund.post(f"/v1/{path}", body), 422, "merchant-suspended"), path
    assert (await fund.paid(merchant, "more", 7)).status == 201
    assert await fund.has(merchant) == (107, 0, 0)


async def test_a_merchant_with_money_is_not_closed_without_a_final_withdrawal(fund: FundClient) -> None:
    merchant = await fund.shop(balance=100)
    path = f"/v1/merchants/{merchant}/close"
    answer = await fund.post(path, {"reason": "r"})
    assert is_problem(answer, 422, "merchant-not-empty")
    assert f"100 on merchant:{merchant}:available" in answer.json["detail"]
    closing = await fund.post(path, {"reason": "r", "final": {"channel": f"c-{fund.salt}"}})
    assert (closing.status, closing.json["state"]) == (202, "closing")
    assert is_problem(await fund.post(path, {"reason": "r", "final": {}}), 400, "malformed")
    empty = await fund.shop("empty")
    assert (await fund.post(f"/v1/merchants/{empty}/close", {"reason": "r"})).json["state"] == "closing"
    refused = {"merchant": empty, "order_no": "w", "channel": f"c-{fund.salt}", "amount": 5}
    assert is_problem(await fund.post("/v1/withdrawals", refused), 422, "merchant-closed")
    assert is_problem(await fund.post(f"/v1/merchants/{empty}/suspend", {"reason": "r"}), 422, "merchant-closed")
    assert (await fund.post(f"/v1/merchants/{empty}/resume", {"reason": "r"})).json["state"] == "open"


async def test_without_the_account_service_a_merchant_is_not_closed(
    running: tuple[str, str], fund: FundClient, tmp_path: Path
) -> None:
    merchant = await fund.shop()
    async with a_fund_service(running[0], tmp_path, None) as (_, url), FundClient(url) as cut:
        for step in ("close", "resume", "suspend"):
            answer = await cut.post(f"/v1/merchants/{merchant}/{step}", {"reason": "r"})
            assert is_problem(answer, 503, "unavailable"), step
    # The suspension needs no account service: only its answer does.
    assert (await shown(fund, merchant))["state"] == "suspended"


async def test_holidays_wait_for_another_identity(fund: FundClient) -> None:
    region = f"R{fund.salt}"
    days = [{"day": "2026-10-01", "name": "National Day"}, {"day": "2026-10-10", "working": True}]
    change = await fund.post("/v1/holidays", {"region": region, "days": days, "why": "State Council"})
    assert (change.status, change.json["kind"], change.json["subject"]) == (202, "holidays", region)
    assert (await fund.get(f"/v1/holidays?region={region}")).json["days"] == []
    assert (await fund.approve(change)).json["state"] == "applied"
    found = (await fund.get(f"/v1/holidays?region={region}")).json
    assert found["days"] == days
    assert found["weekend"] == ["sat", "sun"]
    for bad in (
        {"region": region, "days": []},
        {"region": "", "days": days},
        {"region": region, "days": [days[0], days[0]]},
        {"region": region, "days": [{"day": "2026-02-30"}]},
        {"region": region, "days": [{"day": "2026-10-01", "name": ""}]},
        {"region": region, "days": [{"day": f"20{20 + n // 366:02}-01-01"} for n in range(401)]},
    ):
        assert is_problem(await fund.post("/v1/holidays", bad), 400, "malformed"), bad
    for query in ("", "?region=", "?region=a%20b", "?region=" + "x" * 33):
        assert is_problem(await fund.get(f"/v1/holidays{query}"), 400, "malformed"), query
    assert is_problem(await by(fund, "auditor", "POST", "/v1/holidays", b"{}"), 403, "role-missing")


async def test_a_payment_shows_the_day_on_which_it_is_due(fund: FundClient) -> None:
    merchant = await fund.shop(settlement="daily")
    later = await fund.paid(merchant, "later", 100, settle="later")
    assert later.json["settle_on"] > later.json["created_at"][:10]
    assert (await fund.get(f"/v1/payments/{later.json['id']}")).json["settle_on"] == later.json["settle_on"]
    assert (await fund.paid(merchant, "now", 100)).json.get("settle_on") is None
    body = {"merchant": merchant, "order_no": "s", "day": later.json["created_at"][:10]}
    assert is_problem(await fund.post("/v1/settlements", body), 422, "nothing-to-settle")
    settled = await fund.post("/v1/settlements", {**body, "day": later.json["settle_on"]})
    assert (settled.status, settled.json["amount"]) == (201, 100)
    bad = {**body, "order_no": "t", "day": "2026-02-30"}
    assert is_problem(await fund.post("/v1/settlements", bad), 400, "malformed")


async def test_all_is_withdrawn_over_http(fund: FundClient) -> None:
    merchant = await fund.shop(balance=100, withdrawal_fee={"fixed": 3})
    members = {"merchant": merchant, "order_no": "w", "channel": f"c-{fund.salt}"}
    for bad in ({}, {"all": False}, {"all": True, "amount": 5}, {"amount": "all"}, {"all": "yes"}, {"amount": None}):
        assert is_problem(await fund.post("/v1/withdrawals", {**members, **bad}), 400, "malformed"), bad
    taken = await fund.post("/v1/withdrawals", {**members, "all": True})
    assert taken.status == 201, taken
    assert (taken.json["amount"], taken.json["fee"], taken.json["takes_all"]) == (97, 3, True)
    again = await fund.post("/v1/withdrawals", {**members, "all": True})
    assert (again.status, again.json["id"], again.is_replay) == (200, taken.json["id"], True)
    assert is_problem(await fund.post("/v1/withdrawals", {**members, "amount": 97}), 422, "order-no-reused")
    nothing = {**members, "order_no": "x", "all": True}
    assert is_problem(await fund.post("/v1/withdrawals", nothing), 422, "nothing-to-withdraw")
    assert await fund.has(merchant) == (0, 0, 0)
