"""The handlers of webhooks, without a service around them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest
from multidict import CIMultiDict

from fundledger.app.fund.handlers import webhooks
from fundledger.app.http.problems import BadRequest
from fundledger.app.http.routing import Call
from fundledger.client import AccountService
from fundledger.fund.account_gateway import AccountGateway
from fundledger.fund.model.requests import MerchantRequest
from fundledger.fund.store.merchants import Merchants
from tests.support.fund_ids import MACS


@pytest.fixture
async def service(fund_database: str) -> AsyncIterator[SimpleNamespace]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=2) as pool:
        merchants = Merchants(pool, AccountGateway(AccountService("http://127.0.0.1:1", "")), MACS)
        assert await merchants._write(MerchantRequest("m1", "M", "CNY"), "tests")
        settings = SimpleNamespace(webhooks_private="auto", profile="prod")
        yield SimpleNamespace(pool=pool, settings=settings, merchants=merchants, macs=MACS, reading=reading)


async def reading(read: Callable[[], Awaitable[Any]]) -> Any:
    return await read()


async def ask(handler: Any, service: Any, body: Any = None, id_: str = "", **query: str) -> tuple[int, Any]:
    encoded = b"" if body is None else msgspec.json.encode(body)
    try:
        reply = await handler(service, Call("front", {"id": id_}, query, CIMultiDict(), encoded))
    except BadRequest as bad:
        reply = bad.reply
    return reply.status, msgspec.json.decode(reply.body)


async def test_an_endpoint_is_made_listed_and_disabled(service: SimpleNamespace) -> None:
    body = {"merchant": "m1", "url": "https://example.com/hook", "events": ["payment.posted"]}
    status, made = await ask(webhooks.create_webhook, service, body)
    assert (status, made["secret"][:6]) == (201, "whsec_")
    status, listed = await ask(webhooks.list_webhooks, service, merchant="m1")
    assert listed["webhooks"] == [{name: value for name, value in made.items() if name != "secret"}]
    for _ in range(2):
        status, disabled = await ask(webhooks.disable_webhook, service, id_=made["id"])
        assert (status, disabled["disabled_why"]) == (200, "requested by front")


async def test_the_dead_are_listed_and_delivered_again(service: SimpleNamespace) -> None:
    _, made = await ask(webhooks.create_webhook, service, {"merchant": "m1", "url": "https://example.com/"})
    await service.pool.executemany(
        "INSERT INTO outbox.deliveries (webhook, seq, message, body, state, ended_at) VALUES ($1, $2, 'm', '{}', 'dead', now())",
        [(made["id"], seq) for seq in (1, 2, 3)],
    )
    status, page = await ask(webhooks.list_dead, service, id_=made["id"], limit="2")
    assert (status, [one["seq"] for one in page["dead"]], page["next"]) == (200, [1, 2], 2)
    status, page = await ask(webhooks.list_dead, service, id_=made["id"], limit="2", after="2")
    assert ([one["seq"] for one in page["dead"]], page["next"]) == ([3], None)
    assert await ask(webhooks.redeliver, service, {"seqs": [2, 9]}, id_=made["id"]) == (200, {"redelivered": 1})
    assert await ask(webhooks.redeliver, service, id_=made["id"]) == (200, {"redelivered": 2})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"merchant": "m1", "url": "http://127.0.0.1/"}, "url"),
        ({"merchant": "m 1", "url": "https://example.com/"}, "merchant"),
        ({"merchant": "m1", "url": "https://example.com/", "events": ["payment.gone"]}, "events"),
        ({"merchant": "m1", "url": "https://example.com/", "events": []}, "events"),
        ({"merchant": "m1"}, "url"),
        ({"merchant": "m1", "url": "https://example.com/", "x": 1}, "x"),
    ],
)
async def test_a_bad_endpoint_is_not_made(service: SimpleNamespace, body: Any, field: str) -> None:
    status, problem = await ask(webhooks.create_webhook, service, body)
    assert (status, problem["field"]) == (400, field)


@pytest.mark.parametrize("handler", [webhooks.disable_webhook, webhooks.list_dead, webhooks.redeliver])
async def test_an_endpoint_that_is_not_there_is_not_found(service: SimpleNamespace, handler: Any) -> None:
    status, _ = await ask(handler, service, id_="0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a11")
    assert status == 404
    status, _ = await ask(handler, service, id_="nobody")
    assert status == 400
