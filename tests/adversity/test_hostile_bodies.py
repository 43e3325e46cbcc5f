"""Hostile bodies of requests: the response is short, and the work is at most proportional to the size of the body.

The routes are read from the code, and their valid bodies from the OpenAPI files. New routes are included automatically.
"""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from multidict import CIMultiDict

from benchmarks.hostile_bodies import bodies
from fundledger.app.account import routes as account_routes
from fundledger.app.account.requests import bodies as bodies_of_account
from fundledger.app.fund import routes as fund_routes
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.bodies import decoding
from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX, METADATA_BYTES_MAX
from fundledger.app.http.problems import BadRequest
from fundledger.app.http.routing import Call, Route
from fundledger.app.http.wire.reply import Reply
from fundledger.ratelimit.classes import ApiClass
from tests.adversity.conftest import Tell
from tests.support.client import Client
from tests.support.running import RunningService
from tests.support.waiting import eventually

SOME = "00000000-0000-4000-8000-000000000007"
SERVICES: dict[str, tuple[list[Route[Any]], dict[str, Any]]] = {
    "account": (account_routes.ROUTES, account_routes.PAGES.document()),
    "fund": (fund_routes.ROUTES, fund_routes.PAGES.document()),
}
POSTS = [
    pytest.param(service, route, id=f"{service} {route.template}")
    for service, (routes, _) in SERVICES.items()
    for route in routes
    if route.method == "POST"
]
ANSWER_BYTES_MAX = 1000
FLOOR_S = 0.02
"""Minimum CPU time (s) that is compared. Measurements of shorter times are noise."""
LONGER = 8
"""The ratio of the two sizes of a body that are compared. Linear work grows by 8, work with the square grows by 64."""
GROWTH = 3 * LONGER
"""The growth that is permitted. It is about as far from 8 as from 64: memory that is slower when it is more passes."""
TRIES = 15
"""Number of measurements after which a body counts as too expensive."""


def example_of(service: str, route: Route[Any]) -> dict[str, Any]:
    operation = SERVICES[service][1]["paths"][route.template]["post"]
    if "requestBody" not in operation:
        return {}
    return dict(operation["requestBody"]["content"]["application/json"]["example"])


def kinds(service: str, route: Route[Any], size: int) -> Iterator[tuple[str, bytes]]:
    yield from bodies(example_of(service, route), size)


class Reached(Exception):
    """The handler has accepted the body."""


class Nothing:
    """A substitute for the service: a handler can decode a body, and raises Reached when it needs anything else."""

    def __init__(self, account: object) -> None:
        self._account = account

    @property
    def controller(self) -> "Nothing":
        return self

    @property
    def directory(self) -> "Nothing":
        return self

    def get(self, id_: str) -> object:
        del id_
        return self._account

    def __getattr__(self, name: str) -> Any:
        raise Reached(name)


def handled(route: Route[Any], body: bytes) -> Reply | None:
    """Return the reply by which the handler refuses the body, None when it accepts the body."""
    call = Call(
        "tests",
        {"id": SOME, "payee": SOME, "name": "simulator"},
        {},
        CIMultiDict(),
        body,
        Admission("tests", 0.0, None, ApiClass.PAYMENT),
    )
    try:
        reply = asyncio.run(_handled(route, Nothing(object() if route.by_body else None), call))
    except BadRequest as bad:
        return bad.reply
    except Reached:
        return None
    # A handler that catches every exception also catches `Reached`, and answers 500.
    return None if reply.status == 500 else reply


async def _handled(route: Route[Any], service: Any, call: Call) -> Reply:
    return await route.handler(service, call)


def work_of(route: Route[Any], body: bytes, bound: float = FLOOR_S, tries: int = 5) -> float:
    """Return the CPU seconds of this thread for handling the body: the minimum of several measurements.

    The minimum is used because other processes make a measurement longer, never shorter. Measuring ends when a result
    is at most `bound`, after five that are far above it, or after `tries`.
    """
    least = float("inf")
    for tried in range(1, tries + 1):
        began = time.thread_time()
        handled(route, body)
        least = min(least, time.thread_time() - began)
        if least <= bound or (tried >= 5 and least > 1.5 * bound):
            break
    return least


def not_linear(route: Route[Any], make: Callable[[int], Iterator[tuple[str, bytes]]], size: int) -> list[str]:
    """Return the kinds of bodies for which `LONGER` times the bytes take more than `GROWTH` times the CPU time. A kind that
    does is measured a second time after all others: a machine that was busy for a moment is not busy then.
    """
    suspected = []
    least = 3 * FLOOR_S
    for (kind, short), (_, long) in zip(make(size // LONGER), make(size), strict=True):
        if work_of(route, long, least) <= least:
            continue
        bound = max(GROWTH * work_of(route, short, least / GROWTH), least)
        if work_of(route, long, bound, TRIES) > bound:
            suspected.append((kind, long, bound))
    again = [(kind, long, bound, work_of(route, long, bound, TRIES)) for kind, long, bound in suspected]
    return [f"{kind}: {work:.3f} s for {len(long)} bytes" for kind, long, bound, work in again if work > bound]


def dear(route: Route[Any], make: Callable[[int], Iterator[tuple[str, bytes]]], size: int) -> list[str]:
    """Return the kinds of bodies that take more CPU time than `json.loads` of a list of numbers of the same size."""
    numbers = b"[" + b"1," * (size // 2) + b"1]"
    bound = 0.0
    for _ in range(3):
        began = time.thread_time()
        json.loads(numbers)
        bound = max(bound, time.thread_time() - began)
    bound = max(bound, 2 * FLOOR_S)
    found = []
    for kind, body in make(size):
        work = work_of(route, body, bound, TRIES)
        if work > bound:
            found.append(f"{kind}: {work:.3f} s, where {bound:.3f} s are bearable")
    return found


@pytest.fixture
def silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)


@pytest.mark.parametrize(("service", "route"), POSTS)
def test_work_grows_no_faster_than_the_bytes(silent: None, service: str, route: Route[Any]) -> None:
    size = 7_800_000 if route.body_bytes_max > BODY_BYTES_MAX else 60_000
    assert not_linear(route, lambda n: kinds(service, route, n), size) == []


@pytest.mark.parametrize(("service", "route"), POSTS)
def test_no_kind_is_dearer_than_its_bytes(silent: None, service: str, route: Route[Any]) -> None:
    size = 7_800_000 if route.body_bytes_max > BODY_BYTES_MAX else 60_000
    assert dear(route, lambda n: kinds(service, route, n), size) == []


@pytest.mark.parametrize(
    ("service", "route"),
    [
        post.values
        for post in POSTS
        if post.values[1].body_bytes_max > BODY_BYTES_MAX
        and any(isinstance(value, list) for value in example_of(*post.values).values())
    ],
)
def test_a_member_that_stands_many_times_is_no_dearer_than_a_list_of_as_many_bytes(
    silent: None, service: str, route: Route[Any]
) -> None:
    """Only one value of a repeated member is checked, because a check by a pattern costs more than decoding."""
    made = dict(kinds(service, route, 7_800_000))
    list_of_lists = next(body for kind, body in made.items() if kind.endswith(": lists"))
    bound = max(FLOOR_S, work_of(route, list_of_lists))
    assert work_of(route, made["the same object many times"], bound, TRIES) <= bound


@pytest.mark.parametrize(("service", "route"), POSTS)
def test_what_is_refused_is_answered_shortly_whatever_it_is_made_of(
    silent: None, service: str, route: Route[Any]
) -> None:
    for kind, body in kinds(service, route, 60_000):
        refused = handled(route, body)
        if refused is not None:
            assert refused.status in (400, 413), kind
            assert len(refused.body) < ANSWER_BYTES_MAX, kind


def test_the_valid_bodies_are_decoded(silent: None) -> None:
    """The kinds of bodies are derived from these. If they were invalid, the first check would refuse all kinds."""
    for post in POSTS:
        service, route = post.values
        assert handled(route, json.dumps(example_of(service, route)).encode()) is None, post.id


def test_work_that_grows_with_the_square_is_noticed(silent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test brings back two former defects of the service. One measurement decides: a defect has no need of more."""
    monkeypatch.setattr(sys.modules[__name__], "TRIES", 1)
    route = next(route for route in account_routes.ROUTES if route.template == "/v1/vouchers")
    path = re.compile(r" - at `\$\.?(.*)`$")
    explain = bodies_of_account.explain

    def explain_slowly(error: Exception, item: str = "") -> None:
        path.search(str(error))
        explain(error, item)

    with monkeypatch.context() as patched:
        patched.setattr(bodies_of_account, "explain", explain_slowly)
        assert not_linear(route, lambda n: _kind("a name like a location", route, n), 24_000) != []
    once = decoding._once

    def count_each(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        next((key for key in keys if keys.count(key) > 1), None)
        return once(items)

    monkeypatch.setattr(decoding, "_once", count_each)
    # Otherwise the keys of long metadata are never read.
    monkeypatch.setattr(decoding, "_refuse_long_metadata", lambda _: None)
    accounts = next(route for route in account_routes.ROUTES if route.template == "/v1/accounts")
    assert not_linear(accounts, lambda n: _kind("many keys", accounts, n), 48_000) != []


def _kind(name: str, route: Route[Any], size: int) -> Iterator[tuple[str, bytes]]:
    found = [each for each in kinds("account", route, size) if name in each[0]]
    assert found, name
    yield from found


def test_too_much_metadata_is_refused_before_its_keys_are_looked_at(silent: None) -> None:
    accounts = next(route for route in account_routes.ROUTES if route.template == "/v1/accounts")
    example = {key: value for key, value in example_of("account", accounts).items() if key != "metadata"}
    values = ('{"k":1,"k":2}', '{"k":1,"k":"' + "x" * METADATA_BYTES_MAX + '"}')
    refused = [handled(accounts, f'{json.dumps(example)[:-1]},"metadata":{value}}}'.encode()) for value in values]
    assert [reply and json.loads(reply.body)["field"] for reply in refused] == ["k", "metadata"]


@pytest.fixture
async def clients(platform: RunningService) -> AsyncIterator[dict[str, Client]]:
    async with Client(platform.base_url, platform.token) as account, Client(platform.fund_url, platform.token) as fund:
        yield {"account": account, "fund": fund}


async def test_a_running_service_answers_every_kind_on_every_route_and_goes_on(
    platform: RunningService, clients: dict[str, Client], tell: Tell
) -> None:
    pids = platform.worker_pids(), platform.fund_pids()
    tried = 0
    for post in POSTS:
        service, route = post.values
        size = 2_000_000 if route.body_bytes_max > BODY_BYTES_MAX else 60_000
        for kind, body in kinds(service, route, size):
            answer = await clients[service].post(route.template.replace("{id}", SOME), body=body)
            tried += 1
            assert answer.status in (400, 404, 413, 422), (post.id, kind, answer)
            assert len(answer.body) < ANSWER_BYTES_MAX, (post.id, kind)
            assert answer.headers["Content-Type"] == "application/problem+json"
    for client in clients.values():
        assert (await client.get("/healthz")).status == 200
        await eventually(lambda client=client: _is_ready(client), "it is ready")  # type: ignore[misc]
    assert (platform.worker_pids(), platform.fund_pids()) == pids
    tell("hostile bodies", tried)


async def _is_ready(client: Client) -> bool:
    return (await client.get("/readyz")).status == 200
