"""Requests without an access token are cheap and limited by address. Long polls are limited by caller."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fundledger.app.http.wire.peers import PEERS_MAX, Peers
from fundledger.outbox.feed import WAITERS_OF_CALLER_MAX
from tests.support.answers import is_problem
from tests.support.client import Answer, Client
from tests.support.database import Databases
from tests.support.fund_http import TOKEN, a_fund_service
from tests.support.running import RunningService
from tests.support.waiting import eventually
from tests.support.wire import connected, request

NEVER_REACHED = 1 << 52
"""A seq that no event gets. A poll for the next event would be answered by events of other tests, whose orders on the
shared services are still changing.
"""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_has_a_rate_and_a_burst_of_twice_the_rate() -> None:
    clock = Clock()
    peers = Peers(10, clock)
    assert [peers.wait_s("a", 1) for _ in range(20)] == [0.0] * 20
    assert peers.wait_s("a", 1) == pytest.approx(0.1)
    assert peers.wait_s("b", 1) == 0.0
    clock.now += 0.5
    assert [peers.wait_s("a", 1) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert peers.wait_s("c", 15) == 0.0
    assert peers.wait_s("c", 15) == pytest.approx(1.0)


def test_addresses_are_forgotten() -> None:
    clock = Clock()
    peers = Peers(10, clock)
    for i in range(3 * PEERS_MAX):
        peers.wait_s(str(i), 1)
        clock.now += 0.001
    assert len(peers._until) <= PEERS_MAX


@pytest.fixture
async def bounded(postgres: Databases, tmp_path: Path) -> AsyncIterator[str]:
    """Start a fund service that admits two requests without an access token from an address, or one page (cost 2)."""
    dsn = await postgres.new_fund()
    async with a_fund_service(dsn, tmp_path, None) as (service, url):
        service.peers = Peers(3, Clock())
        yield url
    await postgres.drop(dsn)


def is_refused(answer: Answer) -> None:
    assert answer.status == 429, answer
    assert answer.json["type"].endswith("#quota-exceeded")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_pages_are_bounded_for_each_address_and_health_checks_are_not(bounded: str) -> None:
    async with Client(bounded, None) as nobody, Client(bounded, TOKEN) as client:
        assert (await nobody.get("/docs")).status == 200
        for path in ("/docs", "/openapi.json"):
            is_refused(await nobody.get(path))
        for _ in range(20):
            assert (await nobody.get("/healthz")).status == 200
            assert (await nobody.get("/readyz")).status == 200
        assert is_problem(await client.get("/v1/merchants/nobody"), 404, "not-found"), "a token is not concerned"


@pytest.mark.parametrize("path", ["/v1/payments", "/v1/merchants", "/nowhere"])
async def test_requests_without_a_valid_token_are_bounded_for_each_address(bounded: str, path: str) -> None:
    async with connected(bounded) as wire:
        await wire.send(request("GET", "/healthz", None))
        assert (await wire.reply()).status == 200
        statuses = []
        for _ in range(8):
            await wire.send(request("POST", path, "wrong", b"{}"))
            statuses.append((await wire.reply()).status)
    assert statuses == [404 if path == "/nowhere" else 401] * 6 + [429] * 2
    async with Client(bounded, TOKEN) as client:
        assert (await client.post("/v1/payments", {})).status == 400


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_a_page_is_compressed_and_not_sent_again_to_whom_has_it(client: Client, path: str) -> None:
    plain = await client.get(path, {"Accept-Encoding": "identity"})
    assert plain.status == 200
    assert "Content-Encoding" not in plain.headers
    for accepted in ("gzip", "br;q=1.0, gzip;q=0.8", "GZIP"):
        packed = await client.get(path, {"Accept-Encoding": accepted})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Vary"] == "Accept-Encoding"
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) * 4 < len(plain.body)
    assert "Content-Encoding" not in (await client.get(path, {"Accept-Encoding": "gzip;q=0, br"})).headers
    again = await client.get(path, {"If-None-Match": plain.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == plain.headers["ETag"]
    assert (await client.get(path, {"If-None-Match": '"another"'})).status == 200


@pytest.mark.parametrize("service", ["account", "fund"])
async def test_one_caller_cannot_take_the_long_polls_of_others(platform: RunningService, service: str) -> None:
    url = platform.base_url if service == "account" else platform.fund_url
    async with Client(url, platform.token, connections=WAITERS_OF_CALLER_MAX + 20) as greedy:
        path = f"/v1/events?after={NEVER_REACHED}&wait_s=30"
        polls = [asyncio.create_task(greedy.get(path)) for _ in range(WAITERS_OF_CALLER_MAX + 1)]
        try:
            done = await eventually(lambda: [poll for poll in polls if poll.done()], "its share is taken")
            is_refused(done[0].result())
            assert (await greedy.get("/healthz")).status == 200
            if service == "account":
                other_token = (platform.data_dir / "fund-token").read_text().strip()
                async with Client(url, other_token) as other:
                    assert (await other.get(f"/v1/events?after={NEVER_REACHED}&wait_s=0.1")).status == 200
        finally:
            for poll in polls:
                poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*polls, return_exceptions=True)
