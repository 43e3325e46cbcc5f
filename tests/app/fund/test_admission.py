"""Admission in the fund service: its counters, the merchants that are charged, and responses while a dependency is
unavailable.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fundledger.app.fund.exposition import render
from fundledger.app.fund.handlers import orders
from fundledger.app.fund.metrics import FundSnapshot
from fundledger.app.fund.requests.charged_account import ChargedAccount, charged_account
from fundledger.app.fund.service import SPACE, FundService
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.admission.payment_path import PaymentPath
from fundledger.app.http.problems import BadRequest
from fundledger.fund.model.requests import Payment
from fundledger.outbox.feed import CallerWaitsTooMuch, Event, TooManyWait
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.stats import Limits
from tests.ratelimit.test_limiter import Near, World
from tests.support.answers import is_problem, refusal_of
from tests.support.database import Databases
from tests.support.fund_http import FundClient, a_fund_service
from tests.support.running import RunningService
from tests.support.waiting import eventually
from tests.support.wire import connected, request

POLICIES = """
version = 1
[[policy]]
name = "caller"
key = "caller"
rate = "1/h"
burst = 1_000
mode = "strict"
[[policy]]
name = "merchant"
key = "merchant"
rate = "1/h"
burst = 5
mode = "strict"
"""


class Limited(Limiter):
    """A limiter with a store in memory, which needs no server."""

    def __init__(self) -> None:
        world = World()
        world.now = 1e9
        super().__init__(parse(POLICIES), Near(world, 1), Limits(), space=SPACE)  # type: ignore[arg-type]


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def limited(
    fund_database: str, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FundService, FundClient]]:
    limiter = Limited()
    monkeypatch.setattr(limiter, "run", forever)
    async with (
        a_fund_service(fund_database, tmp_path, service, limiter=limiter) as (fund, url),
        FundClient(url) as client,
    ):
        yield fund, client


async def test_a_merchant_has_one_quota_over_all_kinds_and_repeats_cost_nothing(
    limited: tuple[FundService, FundClient],
) -> None:
    _, client = limited
    merchant = await client.shop()
    sent = [client.payment(merchant, str(i), 10) for i in range(5)]
    assert {(await client.post("/v1/payments", body)).status for body in sent} == {201}
    over = await client.post("/v1/payments", client.payment(merchant, "6", 10))
    assert over.status == 429, over
    assert over.json["violated-policies"] == ["merchant"]
    refund = {"merchant": merchant, "order_no": "r", "payment_order_no": "0", "amount": 1}
    assert (await client.post("/v1/refunds", refund)).status == 429
    batch = {"payments": [client.payment(merchant, "7", 10)]}
    assert (await client.post("/v1/payments/batch", batch)).status == 429
    # A replay is answered from the record although the quota is used up. Without the look-up it would be refused.
    assert (await client.post("/v1/payments", sent[0])).is_replay
    other = await client.shop("other")
    assert (await client.paid(other, "1", 10)).status == 201
    assert await client.has(other) == (10, 0, 0)


async def test_a_repeat_is_refused_by_a_twin_that_does_not_look_for_it(
    limited: tuple[FundService, FundClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = limited
    merchant = await client.shop()
    for i in range(5):
        assert (await client.paid(merchant, str(i), 10)).status == 201
    monkeypatch.setattr(PaymentPath, "_may_be_replay", lambda path, no: False)
    assert (await client.paid(merchant, "0", 10)).status == 429


async def test_a_replay_without_quota_is_answered_also_if_its_merchant_is_not_cached(
    limited: tuple[FundService, FundClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    fund, client = limited
    merchant = await client.shop()
    assert (await client.paid(merchant, "0", 10)).status == 201
    for cost in (50, 1):
        while await fund.controller.charge_caller(Admission("tests", 0.0, None, ApiClass.PAYMENT), cost) is None:
            pass
    fund.merchants._known.clear()
    assert fund.controller.early_rejection(Admission("tests", 0.0, None, ApiClass.PAYMENT)) is not None
    assert (await client.paid(merchant, "1", 10)).status == 429
    assert (await client.paid(merchant, "0", 10)).is_replay
    fund.merchants._known.clear()
    monkeypatch.setattr(PaymentPath, "_may_be_replay", lambda path, no: False)
    assert (await client.paid(merchant, "0", 10)).status == 429


async def test_a_batch_beyond_the_order_queue_gets_the_problem_of_a_single_payment(
    limited: tuple[FundService, FundClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = limited
    merchant = await client.shop()
    batch = {"payments": [client.payment(merchant, str(i), 10) for i in range(2)]}
    with monkeypatch.context() as full:
        full.setattr("fundledger.fund.batcher.WAITING_MAX", 0)
        single = await client.post("/v1/payments", batch["payments"][0])
        whole = await client.post("/v1/payments/batch", batch)
        assert is_problem(single, 503, "unavailable")
        assert single.json["detail"].startswith("the order queue is full;")
        assert refusal_of(whole) == refusal_of(single)
        full.setattr("fundledger.fund.batcher.WAITING_MAX", 1)
        assert is_problem(await client.post("/v1/payments/batch", batch), 503, "outcome-unknown")
    results = (await client.post("/v1/payments/batch", batch)).json["results"]
    assert [(item["state"], "replay" in item) for item in results] == [("posted", True), ("posted", False)]


async def test_replays_in_a_batch_are_refunded(limited: tuple[FundService, FundClient]) -> None:
    fund, client = limited
    merchant = await client.shop()
    batch = {"payments": [client.payment(merchant, str(i), 10) for i in range(2)]}
    for _ in range(4):
        assert (await client.post("/v1/payments/batch", batch)).status == 200
    statuses = [(await client.paid(merchant, f"x{i}", 10)).status for i in range(4)]
    assert statuses == [201, 201, 201, 429]
    assert fund.controller.limiter is not None
    charged = charged_account(merchant)
    matched = fund.controller.limiter.match("tests", ApiClass.PAYMENT, charged.owner, charged.id)
    assert [bucket.key for bucket in matched.buckets] == [
        f"{{{SPACE}}}:caller:tests",
        f"{{{SPACE}}}:merchant:merchant:{merchant}",
    ]


def test_a_merchant_is_limited_by_its_name_in_the_account_service() -> None:
    assert charged_account("10001") == ChargedAccount("merchant:10001:available", "merchant:10001")


async def test_every_answer_has_rate_limit_headers(limited: tuple[FundService, FundClient]) -> None:
    _, client = limited
    merchant = await client.shop()
    answer = await client.paid(merchant, "1", 10)
    assert '"merchant"' in answer.headers["RateLimit-Policy"]
    assert "RateLimit" in answer.headers
    assert "RateLimit" in (await client.get(f"/v1/payments?merchant={merchant}")).headers


async def test_while_the_account_service_is_away_orders_are_kept_and_known_later(
    fund_database: str, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fundledger.app.fund.service.LOOK_EVERY_S", 0.05)
    async with a_fund_service(fund_database, tmp_path, service) as (_, url), FundClient(url) as client:
        merchant = await client.shop()
        payment = client.payment(merchant, "1", 10)
        assert (await client.paid(merchant, "0", 5)).status == 201
    async with a_fund_service(fund_database, tmp_path, None, wait_s=0.1) as (away, url), FundClient(url) as client:
        away.gateway._opened.add((payment["channel"], "CNY"))
        first = await client.post("/v1/payments", payment)
        assert (first.status, first.json["state"]) == (202, "posting"), first
        again = await client.post("/v1/payments", payment)
        assert (again.status, again.is_replay, again.json["id"]) == (202, True, first.json["id"])
        told = await client.get(f"/v1/merchants/{merchant}")
        assert is_problem(told, 503, "unavailable")
        assert "Retry-After" in told.headers
        assert is_problem(
            await client.post("/v1/merchants", {"id": "new", "name": "n", "currency": "CNY"}), 503, "unavailable"
        )
        unopened = {**payment, "order_no": "2", "channel": "never-seen"}
        assert is_problem(await client.post("/v1/payments", unopened), 503, "unavailable")
        batch = await client.post("/v1/payments/batch", {"payments": [{**payment, "order_no": "3"}]})
        assert batch.json["results"][0]["state"] == "posting"
        await eventually(lambda: away.metrics.now.outstanding >= 2, "what is outstanding is counted", 15)
        page = render(away.snapshot()).decode()
        assert "fundledger_fund_outstanding_orders 2.0" in page
        assert 'fundledger_fund_account_call_seconds_count{outcome="away"}' in page


async def test_without_a_database_it_is_not_ready_and_nothing_is_a_server_error_of_ours(
    postgres: Databases, service: RunningService, tmp_path: Path
) -> None:
    dsn = await postgres.new_fund()
    async with a_fund_service(dsn, tmp_path, service) as (fund, url), FundClient(url) as client:
        merchant = await client.shop()
        assert (await client.get("/readyz")).status == 200
        await fund.pool.close()
        assert is_problem(await client.get("/readyz"), 503, "no-database")
        for path in (f"/v1/payments?merchant={merchant}", "/v1/merchants"):
            assert is_problem(await client.get(path), 503, "unavailable")
        # No connection to the database was available, so no query was sent.
        answer = await client.paid(merchant, "1", 5)
        assert is_problem(answer, 503, "unavailable")
    await postgres.drop(dsn)


async def test_a_bug_behind_a_payment_is_an_answer_and_the_connection_goes_on(
    limited: tuple[FundService, FundClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = limited
    merchant = await client.shop()
    body = json.dumps(client.payment(merchant, "1", 5)).encode()

    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    async with connected(client.base_url) as wire:
        for where, name in ((orders.render, "order"), (orders, "charged_account"), (orders.OrderPath, "queue")):
            with monkeypatch.context() as broken:
                broken.setattr(where, name, breaks)
                await wire.send(request("POST", "/v1/payments", client.token, body))
                reply = await wire.reply()
                assert (reply.status, reply.problem) == (500, "internal-error")
        await wire.send(request("POST", "/v1/payments", client.token, body))
        assert (await wire.reply()).status in (200, 201)
    assert sum(limited[0].controller.shedder.counted().in_flight.values()) == 0


async def test_the_quotes_that_prove_no_key_stands_twice_are_the_fewest_there_can_be(fund: FundClient) -> None:
    whole = fund.payment("m", "1", 5)
    for more in ({}, {"settle": "later"}, {"channel_ref": "x"}, {"settle": "now"}, {"ticket": "t"}):
        body = json.dumps({**whole, **more}).encode()
        decoded = orders._decode_payment(body)
        assert isinstance(decoded, Payment)
        with pytest.raises(BadRequest):
            orders._decode_payment(body[:-1] + b', "amount": 5}')


async def test_a_request_for_events_gets_the_page_of_the_feed_or_the_problem_of_its_error(
    fund_database: str, service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, float, str]] = []
    errors = [OSError("away"), TooManyWait("of all callers"), CallerWaitsTooMuch("of this caller")]

    async def read(after: int, limit: int, wait_s: float, caller: str) -> tuple[list[Event], int]:
        asked.append((after, limit, wait_s, caller))
        if errors:
            raise errors.pop(0)
        return [], after + limit

    path = "/v1/events?after=5&limit=7&wait_s=0.5"
    async with a_fund_service(fund_database, tmp_path, service) as (fund, url), FundClient(url) as client:
        monkeypatch.setattr(fund.feed, "read", read)
        for detail in ("the database does not answer;", "of all callers;"):
            away = await client.get(path)
            assert is_problem(away, 503, "unavailable")
            assert away.json["detail"].startswith(detail)
        refused = await client.get(path)
        assert (refused.status, refused.json["violated-policies"]) == (429, ["waiting"])
        assert (await client.get(path)).json == {"events": [], "next": 12}
    assert asked == [(5, 7, 0.5, "tests")] * 4


def test_snapshots_of_workers_add_up_and_what_all_see_is_not_added() -> None:
    one = FundSnapshot(answers={"payment posted": 2}, waiting=1, outstanding=7, outstanding_age_s=1.5)
    two = FundSnapshot(answers={"payment posted": 3}, waiting=2, outstanding=6, outstanding_age_s=2.5)
    one.add(two)
    assert (one.answers, one.waiting, one.outstanding, one.outstanding_age_s) == ({"payment posted": 5}, 3, 7, 2.5)
    one.forget_gauges()
    assert (one.answers, one.waiting, one.outstanding, one.workers) == ({"payment posted": 5}, 0, 0, 0)


async def test_limits_are_shown_of_a_merchant_with_or_without_its_prefix(
    limited: tuple[FundService, FundClient],
) -> None:
    _, client = limited
    for name in ("tea-house", "merchant:tea-house"):
        policies = (await client.get(f"/debug/limits?merchant={name}")).json["policies"]
        assert {(policy["policy"], policy["of"]) for policy in policies} >= {("merchant", "merchant:tea-house")}
