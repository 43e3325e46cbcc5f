"""Webhooks over HTTP: an event arrives at its endpoint, signed; an invalid endpoint is refused."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from fundledger.client import FundService, Refused
from fundledger.outbox.webhooks import PER_MERCHANT_MAX
from tests.support.answers import is_problem
from tests.support.client import Client
from tests.support.endpoint import Endpoint, is_signed
from tests.support.fund_http import FundClient
from tests.support.running import RunningService
from tests.support.waiting import eventually

URL = "https://tea.example/events"
NOBODY = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a11"


@pytest.fixture
async def there(platform: RunningService) -> AsyncIterator[FundService]:
    async with FundService(platform.fund_url, platform.token) as service:
        yield service


async def test_an_event_comes_signed_to_its_endpoint_with_the_order_as_it_is_read(
    platform: RunningService, there: FundService
) -> None:
    merchant = f"hooked-{uuid4().hex[:8]}"
    await there.create_merchant(merchant, "Hooked", "CNY")
    async with Endpoint() as endpoint:
        made = await there.create_webhook(merchant, endpoint.url, ["payment.posted", "withdrawal.posted"])
        try:
            paid = await there.pay(merchant, "p", 5_000, "CNY", "simulator", "ref-1")
            await there.withdraw(merchant, "w", 100, "simulator")
            await eventually(lambda: len(endpoint.got) == 2, "both events come")
        finally:
            disabled = await there.disable_webhook(made.id, "the test is over")
    (headers, body), (_, second) = endpoint.got
    assert made.secret is not None
    assert is_signed(headers, body, made.secret)
    assert not is_signed(headers, body + b" ", made.secret)
    event = msgspec.json.decode(body)
    assert (event["type"], event["merchant"], headers["webhook-id"]) == ("payment.posted", merchant, event["id"])
    async with Client(platform.fund_url, platform.token) as client:
        read = (await client.get(f"/v1/payments/{paid.id}")).json
    assert event["order"] == read
    assert {"settle", "channel_ref"} <= set(read)
    drawn = msgspec.json.decode(second)["order"]
    assert drawn["state"] == "posted"
    assert not {"ending", "channel_ref", "reason"} & set(drawn), "that it ends is told when it has"
    assert (disabled.disabled_why, disabled.secret) == ("the test is over", None)
    assert await there.webhooks(merchant) == [disabled]


async def test_what_was_given_up_is_read_page_by_page_and_sent_again(
    platform: RunningService, there: FundService
) -> None:
    merchant = f"dead-{uuid4().hex[:8]}"
    await there.create_merchant(merchant, "Dead", "CNY")
    made = await there.create_webhook(merchant, "http://127.0.0.1:1/", ["payment.posted"])
    await there.disable_webhook(made.id)
    connection = await asyncpg.connect(platform.fund_dsn)
    try:
        await connection.executemany(
            "INSERT INTO outbox.deliveries (webhook, seq, message, body, state, ended_at)"
            " VALUES ($1, $2, 'm', '{\"seq\":1}', 'dead', now())",
            [(made.id, seq) for seq in (1, 2, 3)],
        )
    finally:
        await connection.close()
    dead = [one async for one in there.dead_webhook_events(made.id, limit=2)]
    assert [(one.seq, one.event.seq, one.attempts) for one in dead] == [(seq, 1, 0) for seq in (1, 2, 3)]
    assert await there.redeliver(made.id, [2, 9]) == 1
    assert await there.redeliver(made.id) == 2
    with pytest.raises(Refused) as refused:
        await there.redeliver(uuid4())
    assert refused.value.problem.code == "not-found"


BAD = {
    "no merchant": ({"url": URL}, "merchant"),
    "a merchant that cannot be": ({"merchant": "a:b", "url": URL}, "merchant"),
    "no URL": ({"merchant": "m"}, "url"),
    "another scheme": ({"merchant": "m", "url": "ftp://tea.example/"}, "url"),
    "no host": ({"merchant": "m", "url": "https:///events"}, "url"),
    "credentials": ({"merchant": "m", "url": "https://me:you@tea.example/"}, "url"),
    "a line break": ({"merchant": "m", "url": "https://tea.example/\r\nHost: x"}, "url"),
    "too long a URL": ({"merchant": "m", "url": URL + "x" * 2048}, "url"),
    "no event at all": ({"merchant": "m", "url": URL, "events": []}, "events"),
    "an event that is never told": ({"merchant": "m", "url": URL, "events": ["payment.created"]}, "events"),
    "events that are no list": ({"merchant": "m", "url": URL, "events": "payment.posted"}, "events"),
    "a member that is not known": ({"merchant": "m", "url": URL, "secret": "s"}, "secret"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_no_endpoint_is_not_made(fund: FundClient, case: str) -> None:
    members, field = BAD[case]
    answer = await fund.post("/v1/webhooks", members)
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == field


async def test_an_endpoint_has_a_merchant_who_has_not_too_many(fund: FundClient) -> None:
    assert is_problem(await fund.post("/v1/webhooks", {"merchant": "nobody", "url": URL}), 422, "merchant-not-found")
    body = {"merchant": await fund.shop(), "url": URL}
    made = [await fund.post("/v1/webhooks", body) for _ in range(PER_MERCHANT_MAX)]
    assert {answer.status for answer in made} == {201}
    assert is_problem(await fund.post("/v1/webhooks", body), 409, "too-many-webhooks")
    assert (await fund.post(f"/v1/webhooks/{made[0].json['id']}/disable")).status == 200
    assert (await fund.post("/v1/webhooks", body)).status == 201


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/v1/webhooks?merchant=a:b", 400, "malformed"),
        ("GET", "/v1/webhooks?limit=1", 400, "malformed"),
        ("GET", "/v1/webhooks/nobody/dead", 400, "malformed"),
        ("GET", f"/v1/webhooks/{NOBODY}/dead", 404, "not-found"),
        ("GET", f"/v1/webhooks/{NOBODY}/dead?limit=0", 400, "malformed"),
        ("GET", f"/v1/webhooks/{NOBODY}/dead?after=-1", 400, "malformed"),
        ("POST", f"/v1/webhooks/{NOBODY}/disable", 404, "not-found"),
        ("POST", f"/v1/webhooks/{NOBODY}/redeliver", 404, "not-found"),
        ("POST", "/v1/webhooks/nobody/redeliver", 400, "malformed"),
    ],
)
async def test_an_invalid_endpoint_is_refused(
    fund: FundClient, method: str, path: str, status: int, problem: str
) -> None:
    assert is_problem(await fund.request(method, path), status, problem)
