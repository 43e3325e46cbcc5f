"""Payees and withdrawals to them over HTTP: who may do what, and who sees a whole account number."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from fundledger.app.fund.service import FundService
from fundledger.fund.model.person import Role
from fundledger.fund.store.persons import add_person
from tests.app.fund.test_fund_openapi import is_documented
from tests.support.answers import instant, is_problem
from tests.support.database import Databases
from tests.support.fund_http import OTHER_TOKEN, TOKEN, FundClient, a_fund_service
from tests.support.fund_payees import iban
from tests.support.running import RunningService

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROLES = {"maker": [Role.MAKER], "checker": [Role.CHECKER], "operator": [Role.OPERATOR], "auditor": [Role.AUDITOR]}
A_DAY = timedelta(hours=24)


class Place(NamedTuple):
    """A fund service and a client for each caller. `tests` and `others` are modules."""

    service: FundService
    tests: FundClient
    others: FundClient
    maker: FundClient
    checker: FundClient
    operator: FundClient
    auditor: FundClient

    def cooling(self, time: timedelta) -> None:
        """Set the cooling time of payees that are approved from now on."""
        self.service.payees._cooling = time

    async def requested(self, merchant: str, number: int = 0, **more: Any) -> Any:
        body = {"holder": "Tea House", "currency": "CNY", "iban": iban(number), **more}
        return await self.tests.post(f"/v1/merchants/{merchant}/payees", body)

    async def payee(self, merchant: str, number: int = 0, **more: Any) -> str:
        made = await self.requested(merchant, number, **more)
        assert (made.status, made.json["kind"], made.json["state"]) == (202, "payee", "waiting"), made
        assert is_documented(made, "POST", "/v1/merchants/{id}/payees")
        applied = await self.others.post(f"/v1/changes/{made.json['id']}/approve")
        assert (applied.status, applied.json["state"]) == (200, "applied"), applied
        return str(made.json["id"])

    def withdrawal(self, merchant: str, order_no: str, amount: int, **more: Any) -> dict[str, Any]:
        return {"merchant": merchant, "order_no": order_no, "amount": amount, "channel": "manual", **more}


@pytest.fixture(scope="module")
async def running(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[FundService, str]]:
    dsn = await postgres.new_fund()
    async with a_fund_service(dsn, tmp_path_factory.mktemp("fund"), service) as (fund, url):
        for name, roles in ROLES.items():
            assert await add_person(fund.pool, fund.macs, name, roles, "tests", NOW, f"token-of-{name}")
        await fund.persons.look()
        yield fund, url
    await postgres.drop(dsn)


@pytest.fixture
async def place(running: tuple[FundService, str]) -> AsyncIterator[Place]:
    fund, url = running
    clients = [FundClient(url, token) for token in (TOKEN, OTHER_TOKEN, *(f"token-of-{name}" for name in ROLES))]
    for client in clients:
        await client.__aenter__()
        client.salt = clients[0].salt
    place = Place(fund, *clients)
    place.cooling(timedelta(0))
    yield place
    for client in clients:
        await client.__aexit__(None, None, None)


# --- The registry ---------------------------------------------------------------------------------------------------


async def test_a_payee_exists_after_another_identity_has_approved_it(place: Place) -> None:
    place.cooling(A_DAY)
    merchant = await place.tests.shop()
    listed = f"/v1/merchants/{merchant}/payees"
    made = await place.requested(merchant, 1, why="a contract of March")
    assert made.status == 202
    id_ = made.json["id"]
    assert is_problem(await place.tests.get(f"{listed}/{id_}"), 404, "not-found")
    assert is_problem(await place.tests.post(f"/v1/changes/{id_}/approve"), 422, "approval-needs-another")
    assert (await place.tests.get(listed)).json["payees"] == []
    assert (await place.others.post(f"/v1/changes/{id_}/approve")).status == 200
    shown = await place.tests.get(f"{listed}/{id_}")
    assert is_documented(shown, "GET", "/v1/merchants/{id}/payees/{payee}")
    payee = shown.json
    assert (payee["merchant"], payee["holder"], payee["state"]) == (merchant, "Tea House", "active")
    assert payee["registered_by"] == "tests"
    assert instant(payee["usable_from"]) - instant(payee["created_at"]) == A_DAY


async def test_account_numbers_are_masked_except_in_one_payee_and_in_the_change_to_be_checked(place: Place) -> None:
    merchant = await place.tests.shop()
    number = iban(2)
    made = await place.requested(merchant, 2)
    id_ = made.json["id"]
    assert number not in made.body.decode()
    assert made.json["body"]["iban"] == f"****{number[-4:]}"
    waiting = await place.others.get("/v1/changes?state=waiting")
    assert number not in waiting.body.decode()
    assert (await place.others.get(f"/v1/changes/{id_}")).json["body"]["iban"] == number
    applied = await place.others.post(f"/v1/changes/{id_}/approve")
    assert number not in applied.body.decode()
    listed = await place.tests.get(f"/v1/merchants/{merchant}/payees")
    assert number not in listed.body.decode()
    assert is_documented(listed, "GET", "/v1/merchants/{id}/payees")
    assert listed.json["payees"][0]["number"] == f"****{number[-4:]}"
    assert "iban" not in listed.json["payees"][0]
    assert (await place.tests.get(f"/v1/merchants/{merchant}/payees/{id_}")).json["iban"] == number


async def test_a_national_account_has_a_bank_code(place: Place) -> None:
    merchant = await place.tests.shop()
    id_ = await place.payee(merchant, iban=None, account="62220001", bank_code="102100099996")
    payee = (await place.tests.get(f"/v1/merchants/{merchant}/payees/{id_}")).json
    assert (payee["account"], payee["bank_code"], "iban" in payee) == ("62220001", "102100099996", False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iban": "DE88370400440532013000"},
        {"iban": None},
        {"account": "1", "bank_code": "2"},
        {"iban": None, "account": "12345678"},
        {"holder": ""},
        {"holder": "a\nb"},
        {"holder": "=1+1"},
        {"replaces": "x"},
        {"currency": "XXX"},
        {"state": "active"},
    ],
)
async def test_a_malformed_payee_is_not_requested(place: Place, wrong: dict[str, Any]) -> None:
    merchant = await place.tests.shop()
    answer = await place.requested(merchant, 3, **wrong)
    assert answer.status == 400, answer
    assert (await place.tests.get(f"/v1/merchants/{merchant}/payees")).json["payees"] == []


async def test_a_payee_of_another_currency_or_twice_is_refused(place: Place) -> None:
    merchant = await place.tests.shop()
    assert is_problem(await place.requested(merchant, 4, currency="USD"), 422, "currency-mismatch")
    waiting = await place.requested(merchant, 4)
    assert (await place.requested(merchant, 4)).json["id"] == waiting.json["id"]
    assert is_problem(await place.requested(merchant, 4, holder="Another"), 409, "change-waiting")
    assert (await place.others.post(f"/v1/changes/{waiting.json['id']}/approve")).status == 200
    assert is_problem(await place.requested(merchant, 4), 409, "payee-exists")
    assert is_problem(await place.requested("nobody", 4), 404, "not-found")


async def test_a_replaced_payee_is_disabled_by_the_approval(place: Place) -> None:
    merchant = await place.tests.shop()
    old = await place.payee(merchant, 5)
    new = await place.payee(merchant, 6, replaces=old)
    payees = (await place.tests.get(f"/v1/merchants/{merchant}/payees")).json["payees"]
    assert [(one["id"], one["state"]) for one in payees] == [(old, "disabled"), (new, "active")]
    assert payees[1]["replaces"] == old
    assert is_problem(await place.requested(merchant, 7, replaces=old), 422, "payee-not-found")


async def test_payees_are_listed_in_pages(place: Place) -> None:
    merchant = await place.tests.shop()
    made = [await place.payee(merchant, number) for number in (1, 2, 3)]
    first = (await place.tests.get(f"/v1/merchants/{merchant}/payees?limit=2")).json
    rest = (await place.tests.get(f"/v1/merchants/{merchant}/payees?limit=2&cursor={first['next_cursor']}")).json
    assert [one["id"] for one in first["payees"] + rest["payees"]] == made
    assert rest["next_cursor"] is None


async def test_one_identity_disables_a_payee_immediately(place: Place) -> None:
    merchant, other = await place.tests.shop(), await place.tests.shop("other")
    id_ = await place.payee(merchant, 8)
    path = f"/v1/merchants/{merchant}/payees/{id_}/disable"
    assert is_problem(await place.tests.post(path.replace(merchant, other), {}), 404, "not-found")
    gone = await place.tests.post(path, {"reason": "closed"})
    assert (gone.status, gone.json["state"], gone.json["disabled_why"]) == (200, "disabled", "closed")
    assert is_documented(gone, "POST", "/v1/merchants/{id}/payees/{payee}/disable")
    again = await place.others.post(path, {"reason": "another"})
    assert (again.status, again.json) == (200, gone.json)
    assert is_problem(await place.tests.post(path, {"reason": 1}), 400, "malformed")
    assert is_problem(await place.tests.get(f"/v1/merchants/{merchant}/payees/x"), 400, "malformed")
    absent = f"/v1/merchants/{merchant}/payees/{uuid.uuid4()}"
    assert is_problem(await place.tests.get(absent), 404, "not-found")


async def test_each_role_does_its_part(place: Place) -> None:
    merchant = await place.tests.shop()
    path = f"/v1/merchants/{merchant}/payees"
    body = {"holder": "Tea House", "currency": "CNY", "iban": iban(9)}
    for client in (place.checker, place.operator, place.auditor):
        assert is_problem(await client.post(path, body), 403, "role-missing")
    made = await place.maker.post(path, body)
    assert (made.status, made.json["maker"]) == (202, "person:maker")
    approve = f"/v1/changes/{made.json['id']}/approve"
    for client in (place.maker, place.operator, place.auditor):
        assert is_problem(await client.post(approve), 403, "role-missing")
    assert (await place.checker.post(approve)).status == 200
    assert (await place.auditor.get(f"{path}/{made.json['id']}")).json["registered_by"] == "person:maker"
    disable = f"{path}/{made.json['id']}/disable"
    for client in (place.maker, place.checker, place.auditor):
        assert is_problem(await client.post(disable, {}), 403, "role-missing")
    assert (await place.operator.post(disable, {})).json["disabled_by"] == "person:operator"


# --- Withdrawals ----------------------------------------------------------------------------------------------------


async def test_a_withdrawal_names_a_payee_of_its_merchant_that_is_active_and_has_cooled(place: Place) -> None:
    merchant, other = await place.tests.shop("m", 10_000), await place.tests.shop("other", 10_000)
    before = await place.tests.post("/v1/withdrawals", place.withdrawal(merchant, "0", 100))
    assert (before.status, "payee" in before.json) == (201, False)
    payee, foreign = await place.payee(merchant, 10), await place.payee(other, 10)
    gone = await place.payee(merchant, 11)
    assert (await place.tests.post(f"/v1/merchants/{merchant}/payees/{gone}/disable", {})).status == 200
    place.cooling(A_DAY)
    fresh = await place.payee(merchant, 12)
    for number, (named, problem) in enumerate(
        [
            ({}, "payee-required"),
            ({"payee": foreign}, "payee-not-found"),
            ({"payee": gone}, "payee-not-found"),
            ({"payee": str(uuid.uuid4())}, "payee-not-found"),
            ({"payee": fresh}, "payee-cooling"),
        ]
    ):
        body = place.withdrawal(merchant, f"r{number}", 100, **named)
        answer = await place.tests.post("/v1/withdrawals", body)
        assert is_problem(answer, 422, problem)
        assert await place.tests.has(merchant) == (9_900, 0, 0)
    good = await place.tests.post("/v1/withdrawals", place.withdrawal(merchant, "1", 100, payee=payee))
    assert (good.status, good.json["payee"], good.json["state"]) == (201, payee, "posted")
    again = await place.tests.post("/v1/withdrawals", place.withdrawal(merchant, "1", 100, payee=payee))
    assert (again.status, again.json["payee"]) == (200, payee)
    changed = await place.tests.post("/v1/withdrawals", place.withdrawal(merchant, "1", 100))
    assert is_problem(changed, 422, "order-no-reused")
    first = await place.tests.post("/v1/withdrawals", place.withdrawal(merchant, "0", 100))
    assert (first.status, first.json["id"]) == (200, before.json["id"])


async def test_a_batch_answers_each_withdrawal(place: Place) -> None:
    merchant, other = await place.tests.shop("m", 1_000), await place.tests.shop("other", 1_000)
    payee = await place.payee(merchant, 13)
    withdrawals = [
        place.withdrawal(merchant, "a", 400, payee=payee),
        place.withdrawal(merchant, "b", 400),
        place.withdrawal(other, "c", 600),
        place.withdrawal("nobody", "d", 1),
        place.withdrawal(merchant, "e", 1_001, payee=payee),
        place.withdrawal(merchant, "f", 600, payee=payee),
        place.withdrawal(other, "g", 600),
    ]
    answer = await place.tests.post("/v1/withdrawals/batch", {"withdrawals": withdrawals})
    assert answer.status == 200, answer
    assert is_documented(answer, "POST", "/v1/withdrawals/batch")
    results = answer.json["results"]
    assert [result["order_no"] for result in results] == list("abcdefg")
    problems = [result.get("problem", {}).get("type", "").rpartition(":")[2] for result in results]
    assert [problems[i] for i in (0, 1, 3, 4, 5)] == [
        "",
        "payee-required",
        "merchant-not-found",
        "insufficient-funds",
        "",
    ]
    assert [results[i]["state"] for i in (0, 5)] == ["posted", "posted"]
    # Only one of two withdrawals that compete for the same money is posted.
    assert sorted(problems[i] for i in (2, 6)) == ["", "insufficient-funds"]
    again = await place.tests.post("/v1/withdrawals/batch", {"withdrawals": withdrawals})
    assert [result.get("id") for result in again.json["results"]] == [result.get("id") for result in results]
    assert ((await place.tests.has(merchant))[0], (await place.tests.has(other))[0]) == (0, 400)
    for wrong in ([], [withdrawals[0]] * 5_001, [{"merchant": merchant}], {}, None):
        assert is_problem(await place.tests.post("/v1/withdrawals/batch", {"withdrawals": wrong}), 400, "malformed")
    for client in (place.checker, place.auditor):
        answer = await client.post("/v1/withdrawals/batch", {"withdrawals": withdrawals})
        assert is_problem(answer, 403, "role-missing")
