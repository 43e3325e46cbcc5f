"""The header `Request-Id`, taken from the request or assigned, in responses, problems and log lines. Also `GET /`."""

import asyncio
import json

import pytest

from fundledger.app.http.problems import malformed
from fundledger.app.http.wire.reply import Reply
from fundledger.app.http.wire.request_id import stamped
from tests.support.answers import is_problem
from tests.support.client import Client, voucher
from tests.support.running import RunningService
from tests.support.wire import connected, request


@pytest.mark.parametrize("path", ["/healthz", "/v1/accounts/nobody", "/no/such/path", "/", "/docs"])
async def test_the_id_that_was_sent_comes_back(platform: RunningService, path: str) -> None:
    for url in (platform.base_url, platform.fund_url):
        async with Client(url, platform.token) as client:
            answer = await client.get(path, headers={"Request-Id": "req_7.A-b"})
            assert answer.headers["Request-Id"] == "req_7.A-b"
            if answer.status >= 400:
                assert answer.json["request_id"] == "req_7.A-b"


async def test_payments_of_the_fast_path_have_one_too(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    good = await client.post("/v1/vouchers", voucher(a, b, 1), headers={"Request-Id": "mine"})
    bad = await client.post("/v1/vouchers", voucher(a, b, 100), headers={"Request-Id": "mine"})
    assert (good.status, good.headers["Request-Id"], bad.headers["Request-Id"]) == (201, "mine", "mine")
    assert "request_id" not in good.json
    assert (bad.json["request_id"], bad.json["documentation"]) == ("mine", "/docs#problem-insufficient-funds")


async def test_one_is_made_where_none_was_sent_and_each_is_another(client: Client) -> None:
    answers = await asyncio.gather(*[client.get("/v1/accounts/nobody") for _ in range(50)])
    ids = [answer.headers["Request-Id"] for answer in answers]
    assert len(set(ids)) == 50
    assert all(answer.json["request_id"] == id_ for answer, id_ in zip(answers, ids, strict=True))


@pytest.mark.parametrize("sent", ["", "a b", "a" * 65, "é", "a;b"])
@pytest.mark.parametrize("path", ["/v1/vouchers", "/v1/holds"])
async def test_an_id_of_another_form_is_malformed(service: RunningService, sent: str, path: str) -> None:
    async with connected(service.base_url) as wire:
        await wire.send(request("POST", path, service.token, b"{}", {"Request-Id": sent}))
        reply = await wire.reply()
    assert (reply.status, reply.json["field"]) == (400, "Request-Id")
    assert reply.headers["request-id"] == reply.json["request_id"] != sent


async def test_what_is_no_http_has_an_id(service: RunningService) -> None:
    async with connected(service.base_url) as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost x\r\n\r\n")
        reply = await wire.reply()
    assert reply.status == 400
    assert reply.headers["request-id"] == reply.json["request_id"]


@pytest.mark.parametrize("path", ["/v1/vouchers", "/v1/accounts/nobody"])
async def test_documentation_names_a_place_in_the_docs(client: Client, path: str) -> None:
    problem = await client.post(path, {})
    docs = await client.get("/docs")
    anchor = problem.json["documentation"].removeprefix("/docs#")
    assert f"id={anchor}>".encode() in docs.body


def test_members_of_a_problem_are_added_and_no_other_body_is_touched() -> None:
    reply = stamped(malformed("no").reply, "x")
    assert json.loads(reply.body)["request_id"] == "x"
    body = Reply(200, b'{"type":"pay"}')
    assert stamped(body, "x") is body


async def test_people_find_the_documentation_and_programs_get_links(platform: RunningService) -> None:
    for url in (platform.base_url, platform.fund_url):
        async with Client(url, None) as client:
            page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
            assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
            links = (await client.get("/")).json["links"]
            for link in links:
                assert f"href={link}>".encode() in page.body
                assert (await client.get(link)).status == 200


async def test_the_examples_of_each_page_go_to_its_own_service(platform: RunningService) -> None:
    for url in (platform.base_url, platform.fund_url):
        async with Client(url, None) as client:
            page = (await client.get("/docs")).body.decode()
        assert f"BASE={url}\nTOKEN=$(cat {platform.data_dir / 'dev-token'})" in page


async def test_an_unknown_currency_is_a_problem_with_an_id(client: Client) -> None:
    asked = {"id": "m:id", "owner": "m", "type": "merchant_available", "currency": "XXQ"}
    assert is_problem(await client.post("/v1/accounts", asked), 400, "currency-unknown")
