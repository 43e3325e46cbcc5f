"""Persons, dual control and the registry of channels, over HTTP."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from fundledger.app.fund.service import FundService
from fundledger.fund.model.person import Role
from fundledger.fund.store.persons import add_person, change_person
from tests.support.answers import is_problem
from tests.support.client import Answer
from tests.support.database import Databases
from tests.support.fund_http import OTHER_TOKEN, TOKEN, FundClient, a_fund_service
from tests.support.running import RunningService

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROLES = {
    "maker": [Role.MAKER],
    "checker": [Role.CHECKER],
    "both": [Role.MAKER, Role.CHECKER],
    "auditor": [Role.AUDITOR],
}


class Place(NamedTuple):
    """A fund service with an empty registry, and a client for each caller. `tests` and `others` are modules."""

    service: FundService
    tests: FundClient
    others: FundClient
    maker: FundClient
    checker: FundClient
    both: FundClient
    auditor: FundClient

    @property
    def salt(self) -> str:
        return self.tests.salt


@pytest.fixture(scope="module")
async def running(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[FundService, str]]:
    dsn = await postgres.new_fund()
    folder = tmp_path_factory.mktemp("fund")
    async with a_fund_service(dsn, folder, service, every_channel=False) as (fund, url):
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
    yield Place(fund, *clients)
    for client in clients:
        await client.__aexit__(None, None, None)


async def registered(place: Place, name: str, **terms: object) -> str:
    """Register a channel through its change, and return its name."""
    made = await place.tests.post("/v1/channels", {"name": f"{name}-{place.salt}", "currency": "CNY", **terms})
    assert made.status == 202, made
    assert made.json["state"] == "waiting"
    applied = await place.others.post(f"/v1/changes/{made.json['id']}/approve")
    assert (applied.status, applied.json["state"], applied.json["checker"]) == (200, "applied", "others"), applied
    return f"{name}-{place.salt}"


async def paid(place: Place, merchant: str, number: str, amount: int, channel: str = "simulator") -> Answer:
    ref = f"ref-{uuid.uuid4().hex}"
    return await place.tests.paid(merchant, number, amount, channel=channel, channel_ref=ref)


# --- Persons --------------------------------------------------------------------------------------------------------


async def test_a_person_may_do_what_its_roles_permit(place: Place) -> None:
    merchant = await place.tests.shop()
    assert (await place.auditor.get(f"/v1/merchants/{merchant}")).status == 200
    payment = place.tests.payment(merchant, "1", 10, channel="simulator")
    for client in (place.auditor, place.checker):
        assert is_problem(await client.post("/v1/payments", payment), 403, "role-missing")
        assert is_problem(await client.post("/v1/payments/batch", {"payments": [payment]}), 403, "role-missing")
    assert (await place.maker.post("/v1/payments", payment)).status == 201
    order = await place.maker.get(f"/v1/payments?merchant={merchant}&order_no=1")
    history = await place.auditor.get(f"/v1/payments/{order.json['id']}/history")
    assert history.json["history"][0]["detail"] == {"requested_by": "person:maker"}
    assert is_problem(await place.maker.post("/v1/approvals", {"orders": [order.json["id"]]}), 403, "role-missing")
    assert is_problem(await place.maker.post(f"/v1/payments/{order.json['id']}/retry"), 403, "role-missing")


async def test_a_disabled_person_a_rotated_token_and_an_edited_row_are_not_authenticated(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dsn = await postgres.new_fund()
    async with a_fund_service(dsn, tmp_path_factory.mktemp("fund"), service) as (fund, url):
        for name in ("gone", "turned", "edited"):
            await add_person(fund.pool, fund.macs, name, [Role.AUDITOR], "tests", NOW, f"token-of-{name}")

        async def statuses() -> list[int]:
            await fund.persons.look()
            found = []
            for name in ("gone", "turned", "edited"):
                async with FundClient(url, f"token-of-{name}") as client:
                    found.append((await client.get("/v1/merchants")).status)
            return found

        assert await statuses() == [200, 200, 200]
        await change_person(fund.pool, fund.macs, "gone", NOW, disable=True)
        await change_person(fund.pool, fund.macs, "turned", NOW, token="another")
        async with fund.pool.acquire() as connection:
            await connection.execute("ALTER TABLE fund.persons DISABLE TRIGGER persons_forward")
            await connection.execute("UPDATE fund.persons SET roles = '{auditor,checker}' WHERE name = 'edited'")
            await connection.execute("ALTER TABLE fund.persons ENABLE ALWAYS TRIGGER persons_forward")
        assert await statuses() == [401, 401, 401]
        assert await change_person(fund.pool, fund.macs, "gone", NOW, token="again") is None
    await postgres.drop(dsn)


async def test_a_person_is_not_authenticated_by_a_cache_that_is_too_old(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fundledger.fund.store.persons.FRESH_S", -1.0)
    assert is_problem(await place.auditor.get("/v1/merchants"), 503, "unavailable")
    assert (await place.auditor.get("/v1/nothing")).status == 404
    assert (await place.tests.get("/v1/merchants")).status == 200


# --- Dual control ---------------------------------------------------------------------------------------------------


async def test_a_reversal_reserves_when_it_is_approved(place: Place) -> None:
    merchant = await place.tests.shop(f"r{uuid.uuid4().hex[:6]}")
    assert (await paid(place, merchant, "p", 100)).status == 201
    members = {"merchant": merchant, "of_kind": "payment", "of_order_no": "p", "reason": "twice"}
    first, second = [(await place.both.post("/v1/reversals", {**members, "order_no": number})) for number in ("a", "b")]
    assert (first.status, first.json["state"], second.json["state"]) == (201, "created", "created")
    assert await place.tests.has(merchant) == (100, 0, 0)
    path = f"/v1/reversals/{first.json['id']}"
    assert is_problem(await place.both.post(f"{path}/approve"), 422, "approval-needs-another")
    approved = await place.checker.post(f"{path}/approve", {"person": "note"})
    assert (approved.status, approved.json["state"], approved.json["approved_by"]) == (
        200,
        "posted",
        "person:checker/note",
    )
    assert (await place.others.post(f"{path}/approve")).is_replay
    assert await place.tests.has(merchant) == (0, 0, 0)
    other = f"/v1/reversals/{second.json['id']}"
    assert is_problem(await place.checker.post(f"{other}/approve"), 422, "order-already-reversed")
    assert (await place.tests.get(other)).json["state"] == "created"
    rejected = await place.checker.post(f"{other}/reject", {"reason": "a is enough"})
    assert (rejected.status, rejected.json["state"]) == (200, "rejected")
    history = (await place.tests.get(f"{other}/history")).json["history"]
    assert [step["state"] for step in history] == ["created", "rejected"]
    assert history[0]["detail"] == {"requested_by": "person:both"}
    assert (history[1]["detail"]["rejected_by"], history[1]["detail"]["detail"]) == ("person:checker", "a is enough")
    assert (await place.checker.post(f"{other}/reject", {"reason": "again"})).is_replay
    assert is_problem(await place.checker.post(f"{other}/approve"), 422, "order-rejected")
    assert is_problem(await place.checker.post(f"{path}/reject", {"reason": "late"}), 422, "order-approved")


async def test_an_order_that_is_not_approved_in_time_expires(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await place.tests.shop(f"e{uuid.uuid4().hex[:6]}")
    slip = {"merchant": merchant, "amount": 5, "direction": "credit", "reason": "slip"}
    created = [(await place.tests.post("/v1/adjustments", {**slip, "order_no": number})).json for number in ("1", "2")]
    late = datetime.now(UTC) + timedelta(days=7)
    monkeypatch.setattr(place.service.batcher, "_now", lambda: late)
    path = f"/v1/adjustments/{created[0]['id']}"
    assert is_problem(await place.others.post(f"{path}/approve"), 422, "order-expired")
    await place.service.batcher.expire_some()
    assert (await place.tests.get(path)).json["state"] == "expired"
    assert is_problem(await place.others.post(f"{path}/approve"), 422, "order-expired")
    assert is_problem(await place.others.post(f"{path}/reject", {"reason": "r"}), 422, "order-expired")
    assert await place.tests.has(merchant) == (0, 0, 0)


async def test_many_orders_are_approved_each_on_its_own(place: Place) -> None:
    ours = {"channel": "simulator", "currency": "CNY", "amount": 3, "direction": "more", "reason": "statement"}
    ids = []
    for number in ("1", "2"):
        made = await place.tests.post("/v1/bank-differences", {**ours, "order_no": f"{place.salt}-{number}"})
        assert (made.status, made.json["state"]) == (201, "created"), made
        ids.append(made.json["id"])
    own = await place.both.post("/v1/bank-differences", {**ours, "order_no": f"{place.salt}-3"})
    asked = [*ids, own.json["id"], str(uuid.uuid4())]
    answer = await place.both.post("/v1/approvals", {"orders": asked})
    assert answer.status == 200, answer
    results = answer.json["results"]
    assert [result["id"] for result in results] == asked
    assert [result.get("state") for result in results] == ["posted", "posted", None, None]
    types = [result["problem"]["type"].rpartition(":")[2] for result in results[2:]]
    assert types == ["approval-needs-another", "order-not-found"]


# --- Channels -------------------------------------------------------------------------------------------------------


async def test_an_order_through_an_unknown_channel_opens_nothing_and_names_the_known_ones(place: Place) -> None:
    merchant = await place.tests.shop(f"u{uuid.uuid4().hex[:6]}")
    refused = await paid(place, merchant, "p", 10, "icbcc")
    assert is_problem(refused, 422, "channel-not-found")
    assert "simulator" in refused.json["detail"]
    cost = {"order_no": f"k-{place.salt}", "channel": "icbcc", "amount": 3, "currency": "CNY"}
    assert is_problem(await place.tests.post("/v1/channel-costs", cost), 422, "channel-not-found")
    drawn = {"merchant": merchant, "order_no": "w", "amount": 1, "channel": "icbcc"}
    assert is_problem(await place.tests.post("/v1/withdrawals", drawn), 422, "channel-not-found")
    lines = {"channel": "icbcc", "statement_no": "1", "currency": "CNY", "lines": [{"ref": "r", "amount": 1}]}
    assert is_problem(await place.tests.post("/v1/bank-statements", lines), 422, "channel-not-found")
    assert not place.service.gateway.is_open("icbcc", "CNY")


async def test_a_channel_is_registered_and_changed_by_two_identities(place: Place) -> None:
    name, merchant = f"icbc-{place.salt}", await place.tests.shop(f"c{uuid.uuid4().hex[:6]}")
    new = {"name": name, "currency": "CNY"}
    made = await place.both.post("/v1/channels", new)
    assert (made.status, made.json["maker"], made.json["body"]["name"]) == (202, "person:both", name), made
    assert (await place.both.post("/v1/channels", new)).json["id"] == made.json["id"]
    assert is_problem(await place.tests.post("/v1/channels", new), 409, "change-waiting")
    path = f"/v1/changes/{made.json['id']}"
    assert is_problem(await place.both.post(f"{path}/approve"), 422, "approval-needs-another")
    assert is_problem(await paid(place, merchant, "p", 10, name), 422, "channel-not-found")
    assert (await place.checker.post(f"{path}/approve")).json["state"] == "applied"
    assert (await place.others.post(f"{path}/approve")).json["checker"] == "person:checker"
    assert is_problem(await place.tests.post("/v1/channels", new), 409, "channel-exists")
    shown = (await place.auditor.get(f"/v1/channels/{name}")).json["channels"]
    assert [(c["bank_account"], c["overdraft"], c["registered_by"]) for c in shown] == [
        (f"bank:{name}", 0, "person:both")
    ]
    unnamed = await place.tests.paid(merchant, "p", 10, channel=name)
    assert is_problem(unnamed, 422, "channel-ref-missing")
    assert (await paid(place, merchant, "p", 10, name)).status == 201
    patched = await place.maker.patch(f"/v1/channels/{name}", {"currency": "CNY", "state": "closed"})
    rejected = await place.checker.post(f"/v1/changes/{patched.json['id']}/reject", {"reason": "not now"})
    assert (rejected.json["state"], rejected.json["reason"]) == ("rejected", "not now")
    assert is_problem(await place.others.post(f"/v1/changes/{patched.json['id']}/approve"), 422, "change-ended")
    waiting = (await place.auditor.get("/v1/changes?state=waiting&limit=500")).json["changes"]
    assert patched.json["id"] not in [change["id"] for change in waiting]


async def test_refunds_that_a_person_may_have_made_are_not_sent_after_a_change(place: Place) -> None:
    merchant = await place.tests.shop(f"r{uuid.uuid4().hex[:6]}")
    name = await registered(place, "byhand", payout="http", refund="manual")
    assert (await paid(place, merchant, "p", 1_000, name)).status == 201
    asked = {"merchant": merchant, "order_no": "r", "payment_order_no": "p", "amount": 10}
    refund = await place.tests.post("/v1/refunds", asked)
    assert (refund.status, refund.json["state"]) == (201, "posted")
    change = await place.tests.patch(f"/v1/channels/{name}", {"currency": "CNY", "refund": "payout"})
    approve = f"/v1/changes/{change.json['id']}/approve"
    assert is_problem(await place.others.post(approve), 422, "refunds-waiting")
    assert (await place.tests.get(f"/v1/changes/{change.json['id']}")).json["state"] == "waiting"
    ended = await place.tests.post(f"/v1/refunds/{refund.json['id']}/paid", {"channel_ref": f"B-{place.salt}"})
    assert (ended.status, ended.json["state"]) == (200, "paid")
    assert (await place.others.post(approve)).json["state"] == "applied"


async def test_a_channel_that_the_settings_name_makes_no_refunds_of_its_own(place: Place) -> None:
    """It may have been in use before refunds were sent. Another currency has the method of the first one."""
    channels, name = place.service.channels, f"auto-{place.salt}"
    channels._automatic = {**channels._automatic, name: True}
    found = await channels.get(name, "CNY")
    assert found
    assert (found.payout, found.refund) == ("http", "manual")
    change = await place.tests.patch(f"/v1/channels/{name}", {"currency": "CNY", "refund": "http"})
    assert (await place.others.post(f"/v1/changes/{change.json['id']}/approve")).json["state"] == "applied"
    await channels.look()
    found = await channels.get(name, "USD")
    assert found
    assert (found.payout, found.refund) == ("http", "http")


async def test_the_refund_method_of_a_channel_is_registered_and_changed(place: Place) -> None:
    """A person who can change the method decides who sends the money, so this also needs two identities."""
    name = await registered(place, "back")
    path = f"/v1/channels/{name}"

    async def method() -> str:
        (shown,) = (await place.auditor.get(path)).json["channels"]
        return str(shown["refund"])

    assert await method() == "payout"
    assert (await place.auditor.get(f"/v1/channels/{await registered(place, 'hand', refund='manual')}")).status == 200
    patched = await place.maker.patch(path, {"currency": "CNY", "refund": "http"})
    assert (patched.status, patched.json["body"]) == (202, {"currency": "CNY", "refund": "http", "why": None})
    assert await method() == "payout"
    assert is_problem(await place.maker.post(f"/v1/changes/{patched.json['id']}/approve"), 403, "role-missing")
    assert (await place.checker.post(f"/v1/changes/{patched.json['id']}/approve")).status == 200
    assert await method() == "http"
    for wrong in ("cash", "", None, 1):
        body = {"currency": "CNY", "refund": wrong}
        assert is_problem(await place.maker.patch(path, body), 400, "malformed"), wrong
        new = {"name": f"wrong-{place.salt}", **body}
        assert is_problem(await place.maker.post("/v1/channels", new), 400, "malformed"), wrong


async def test_a_person_who_only_requests_does_not_end_a_refund(place: Place) -> None:
    merchant = await place.tests.shop(f"f{uuid.uuid4().hex[:6]}")
    assert (await paid(place, merchant, "p", 100)).status == 201
    refund = {"merchant": merchant, "order_no": "r", "payment_order_no": "p", "amount": 10}
    made = await place.maker.post("/v1/refunds", refund)
    assert (made.status, made.json["state"]) == (201, "posted")
    for client in (place.maker, place.checker, place.auditor):
        for end, body in (("paid", {"channel_ref": "x"}), ("bounced", {"reason": "x"})):
            answer = await client.post(f"/v1/refunds/{made.json['id']}/{end}", body)
            assert is_problem(answer, 403, "role-missing")
        back = {"merchant": merchant, "order_no": "b", "withdrawal_order_no": "w", "amount": 1, "channel_ref": "r"}
        expected = (422, "withdrawal-not-found") if client is place.maker else (403, "role-missing")
        assert is_problem(await client.post("/v1/payout-returns", back), *expected)
    assert await place.tests.has(merchant) == (90, 0, 0)


async def test_a_withdrawal_beyond_the_bank_account_of_its_channel_is_refused(place: Place) -> None:
    merchant = await place.tests.shop(f"w{uuid.uuid4().hex[:6]}")
    paying = await registered(place, "payout")
    assert (await paid(place, merchant, "big", 1_000)).status == 201
    assert (await paid(place, merchant, "small", 100, paying)).status == 201
    drawn = {"merchant": merchant, "channel": paying}
    first = await place.tests.post("/v1/withdrawals", {**drawn, "order_no": "w1", "amount": 60})
    assert (first.status, first.json["state"]) == (201, "posted")
    more = {**drawn, "order_no": "w2", "amount": 41}
    assert is_problem(await place.tests.post("/v1/withdrawals", more), 422, "channel-underfunded")
    patched = await place.tests.patch(f"/v1/channels/{paying}", {"currency": "CNY", "overdraft": 1})
    assert (await place.others.post(f"/v1/changes/{patched.json['id']}/approve")).status == 200
    assert (await place.tests.post("/v1/withdrawals", more)).status == 201
    closed = await place.tests.patch(f"/v1/channels/{paying}", {"currency": "CNY", "state": "closed"})
    assert (await place.others.post(f"/v1/changes/{closed.json['id']}/approve")).status == 200
    assert (await place.tests.post("/v1/withdrawals", more)).is_replay
    assert is_problem(await place.tests.post("/v1/withdrawals", {**more, "order_no": "w3"}), 422, "channel-closed")
    assert (await paid(place, merchant, "late", 5, paying)).status == 201
