"""Faults on the path of a request: it is answered, leaves nothing in flight, and is charged only for work done.

The tests run a real server on a real socket, with a service whose parts fail at the place that the test chooses.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from fundledger.app.account.handlers import vouchers
from fundledger.app.account.routes import ROUTES
from fundledger.app.http import routing
from fundledger.app.http.admission.controller import AdmissionController
from fundledger.app.http.admission.hot_keys import HotKeys
from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX
from fundledger.app.http.routing import Router, answer
from fundledger.app.http.wire import body_memory
from fundledger.app.http.wire.body_memory import BodiesUnderWay
from fundledger.app.http.wire.connections import Connections
from fundledger.app.http.wire.peers import Peers
from fundledger.app.http.wire.protocol import PaymentProtocol
from fundledger.faults import Fault, OutcomeUnknown, Unavailable
from fundledger.hotspot.lane import LaneFull
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Outcome
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.shedding.shedder import Shedder
from fundledger.ratelimit.stats import Limits
from tests.ratelimit.test_limiter import Near, World
from tests.support.client import new_id, voucher
from tests.support.wire import Reply, Wire, connected, request

POLICIES = """
version = 1
[[policy]]
name = "all"
key = "global"
rate = "1/h"
burst = 100
mode = "strict"
[[policy]]
name = "merchant"
key = "merchant"
rate = "1/h"
burst = 10
mode = "strict"
"""
REFUSED = Outcome(refusal=Refusal(Code.INSUFFICIENT_FUNDS, "there is not enough"))


class Lane:
    """A lane that answers in the next iteration of the event loop, or is full."""

    def __init__(self) -> None:
        self.outcome: Outcome | Fault = REFUSED
        self.is_full = False

    def post(self, command: Any, answer: Callable[[int, Any], None], index: int = 0) -> None:
        if self.is_full:
            raise LaneFull("too many vouchers are waiting")
        asyncio.get_running_loop().call_soon(answer, index, self.outcome)

    def free(self) -> int:
        return 0 if self.is_full else 1000


class Directory:
    """An account directory with some accounts in its cache, which counts the reads of other accounts."""

    def __init__(self) -> None:
        self.known: dict[str, Account] = {}
        self.reads = 0
        for number, id_ in enumerate(("m:1:available", "m:2:available")):
            self.known[id_] = Account(number, id_, 0, 1, "CNY", CHART["merchant_available"], owner=id_[:3])

    def get(self, id_: str) -> Account | None:
        return self.known.get(id_)

    async def resolve(self, pool: object, ids: list[str]) -> dict[str, Account]:
        self.reads += any(id_ not in self.known for id_ in ids)
        return {id_: self.known[id_] for id_ in ids if id_ in self.known}


class Service(SimpleNamespace):
    """The parts of a service that the handlers of vouchers and holds use."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        # The time is long after the start of the store, so that buckets are full.
        self.world.now = 1e9
        limiter = Limiter(parse(POLICIES), Near(self.world, 1), Limits())  # type: ignore[arg-type]
        self.controller = AdmissionController(limiter, Shedder(1.0, 100), HotKeys())
        self.lane = Lane()
        self.lanes = [self.lane]
        self.directory = Directory()
        self.draining = False
        self.connections = Connections(1000, 1000)
        self.bodies = BodiesUnderWay(64 << 20)
        self.peers = Peers(1_000_000)
        self.pool = None
        self.base_url = ""
        self.told: list[int] = []
        self.replays = SimpleNamespace(has_room=lambda: False)
        self.metrics = SimpleNamespace(outcome=lambda name: None)
        self._tasks: set[asyncio.Task[None]] = set()

    def module(self, authorization: str | None) -> str | None:
        return None if authorization is None else "dev"

    def answered(self, route: str, status: int, *_: object) -> None:
        self.told.append(status)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self, shard: int, command: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.lane.post(command, lambda _, outcome: future.set_result(outcome))
        return await future

    async def reading(self, read: Callable[[], Any]) -> Any:
        return await read()

    reading_durable = reading

    @property
    def in_flight(self) -> int:
        return sum(self.controller.shedder.counted().in_flight.values())

    def spent(self) -> int:
        """Return the tokens that were spent from the global bucket, less the refunds that are still to be sent."""
        limiter = self.controller.limiter
        assert limiter is not None
        bucket = limiter.match("dev", ApiClass.PAYMENT, None, None).buckets[0]
        return self.world.granted.get(bucket.key, 0) + bucket.debt


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    router = Router(ROUTES)
    manager = web.Server(handler=lambda request: answer(service, router, request))  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: PaymentProtocol(
            service, vouchers.FAST_PATH, manager, loop=loop, access_log=None, auto_decompress=False, lingering_time=0.1
        ),  # type: ignore[arg-type]
        "127.0.0.1",
        0,
    )
    service.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield service
    server.close()
    await manager.shutdown(1)


WAYS: dict[str, dict[str, str]] = {"short path": {}, "ordinary path": {"Expect": "100-continue"}}
both_ways = pytest.mark.parametrize("headers", WAYS.values(), ids=WAYS)


async def send(wire: Wire, body: Any, headers: dict[str, str], path: str = "/v1/vouchers") -> Reply:
    await wire.send(request("POST", path, "token", json.dumps(body).encode(), headers))
    reply = await wire.reply()
    return await wire.reply() if reply.status == 100 else reply


def a_payment(*accounts: str) -> dict[str, Any]:
    return voucher(*(accounts or ("m:1:available", "m:2:available")), 1)


def breaks(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


@both_ways
@pytest.mark.parametrize("where", ["refused", "to_voucher", "class_and_accounts"])
async def test_a_bug_is_an_answer_and_the_connection_goes_on(
    service: Service,
    headers: dict[str, str],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = []
    async with connected(service.base_url) as wire:
        with monkeypatch.context() as broken:
            broken.setattr(vouchers, where, breaks)
            for _ in range(3):
                reply = await send(wire, a_payment(), headers)
                assert (reply.status, reply.problem) == (500, "internal-error")
                sent.append(reply.headers["request-id"])
        assert service.in_flight == 0
        assert (await send(wire, a_payment(), headers)).status == 422
    assert service.told == [500, 500, 500, 422]
    assert service.in_flight == 0
    assert logged(caplog, "request_failed") == sent


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the request ids of the log lines with this event."""
    return [record.request_id for record in caplog.records if getattr(record, "event", "") == event]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("where", "event"), [("answered", "answer_not_counted"), ("module", "request_failed")])
async def test_a_bug_around_a_payment_is_an_answer_and_the_connection_goes_on(
    service: Service, where: str, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent = []
    async with connected(service.base_url) as wire:
        whole = getattr(service, where)
        setattr(service, where, breaks)
        for _ in range(2):
            await wire.send(request("POST", "/v1/vouchers", "token", json.dumps(a_payment()).encode()))
            reply = await wire.reply()
            assert reply.status == (422 if where == "answered" else 500)
            sent.append(reply.headers["request-id"])
        setattr(service, where, whole)
        await wire.send(request("POST", "/v1/vouchers", "token", json.dumps(a_payment()).encode()))
        assert (await wire.reply()).status == 422
    assert service.in_flight == 0
    assert logged(caplog, event) == sent


@both_ways
@pytest.mark.parametrize("path", ["/v1/vouchers", "/v1/vouchers/batch", "/v1/holds"])
@pytest.mark.parametrize(
    ("outcome", "costs"), [(None, 0), (Unavailable("away"), 0), (OutcomeUnknown(), 1)], ids=["full", "away", "unknown"]
)
async def test_what_we_could_not_do_costs_nothing(
    service: Service, headers: dict[str, str], path: str, outcome: Fault | None, costs: int
) -> None:
    bodies: dict[str, Any] = {
        "/v1/vouchers": a_payment(),
        "/v1/vouchers/batch": {"vouchers": [a_payment()]},
        "/v1/holds": {"id": "h:1", "account": "m:1:available", "amount": 1},
    }
    if outcome is None:
        service.lane.is_full = True
    else:
        service.lane.outcome = outcome
    async with connected(service.base_url) as wire:
        assert (await send(wire, bodies[path], headers, path)).status == 503
    assert service.spent() == costs
    assert service.in_flight == 0


@both_ways
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/vouchers", a_payment("m:nobody", "m:1:available")),
        ("/v1/holds", {"id": "h:1", "account": "m:nobody", "amount": 1}),
        ("/v1/vouchers/batch", {"vouchers": [a_payment("m:nobody", "m:1:available")]}),
    ],
)
async def test_unknown_accounts_are_charged_and_not_read_beyond_the_quota(
    service: Service, headers: dict[str, str], path: str, body: Any
) -> None:
    async with connected(service.base_url) as wire:
        statuses = [(await send(wire, body, headers, path)).status for _ in range(110)]
    assert set(statuses[:100]) <= {200, 422}
    assert statuses[100:] == [429] * 10
    assert service.spent() == 100
    # The first request that exceeds the quota may also read.
    assert service.directory.reads <= 101
    decided = service.controller.limiter.counted().decisions
    assert sum(count for key, count in decided.items() if " deny " in key) == 10


@both_ways
async def test_a_replay_without_quota_is_admitted_and_leaves_nothing_in_flight(
    service: Service, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(*_: object) -> bool:
        return True

    service.replays = SimpleNamespace(has_room=lambda: True, known=known)
    service.directory.known["bank"] = Account(2, "bank", 0, 1, "CNY", CHART["bank"])
    service.lane.outcome = Outcome(refusal=REFUSED.refusal, replay=True)
    # No account is cached. The class of the voucher is known only after its accounts were read.
    monkeypatch.setattr(service.directory, "get", lambda id_: None)
    monkeypatch.setattr(AdmissionController, "early_rejection", lambda controller, _: controller.too_many_wait())
    async with connected(service.base_url) as wire:
        reply = await send(wire, a_payment("m:1:available", "bank"), headers)
    assert (reply.status, reply.problem) == (422, "insufficient-funds")
    assert set(service.controller.shedder.counted().in_flight.values()) == {0}
    assert service.spent() == 0


@pytest.mark.parametrize("member", ["metadata", "type", "id"])
@pytest.mark.parametrize("path", ["/v1/vouchers", "/v1/vouchers/batch"])
async def test_what_is_malformed_is_not_read_for(service: Service, path: str, member: str) -> None:
    bad = {**a_payment("m:nobody", "m:1:available"), member: {"metadata": [1], "type": "?", "id": "x"}[member]}
    async with connected(service.base_url) as wire:
        reply = await send(wire, {"vouchers": [bad]} if path.endswith("batch") else bad, {}, path)
    assert reply.status == 400
    assert service.directory.reads == 0
    assert service.spent() == 1, "that one token of its caller"


async def test_a_body_that_never_comes_is_408_and_holds_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "BODY_S", 0.3)
    heads = {"Content-Length": "100"}
    for path in ("/v1/vouchers", "/v1/accounts", "/v1/accounts/m:1:available/freeze"):
        async with connected(service.base_url) as wire:
            await wire.send(request("POST", path, "token", b"{", heads))
            async with connected(service.base_url) as other:
                await other.send(request("GET", "/healthz", None))
                assert (await other.reply()).status == 200
            assert service.in_flight == 0
            reply = await wire.reply()
            assert (reply.status, reply.problem) == (408, "body-too-late")
            assert await wire.is_closed()
    assert service.spent() == 0


async def test_how_long_a_body_took_to_arrive_is_not_how_long_we_took(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[float] = []
    leave = service.controller.shedder.leave

    def left(api_class: ApiClass, merchant: str | None, seconds: float, *, dropped: bool = False) -> None:
        took.append(seconds)
        leave(api_class, merchant, seconds, dropped=dropped)

    monkeypatch.setattr(Shedder, "leave", lambda self, *arguments, **named: left(*arguments, **named))
    body = json.dumps({"id": new_id(), "owner": "m", "type": "none", "currency": "CNY"}).encode()
    async with connected(service.base_url) as wire:
        whole = request("POST", "/v1/accounts", "token", body)
        began = time.monotonic()
        await wire.send(whole[:-5])
        # Wait for a hundred responses to other requests, which takes long enough on any machine.
        async with connected(service.base_url) as other:
            for _ in range(100):
                await other.send(request("GET", "/healthz", None))
                assert (await other.reply()).status == 200
        assert took == [], "nothing is answered before the body is whole"
        held_s = time.monotonic() - began
        await wire.send(whole[-5:])
        assert (await wire.reply()).status == 400
    assert len(took) == 1
    assert took[0] < held_s


async def test_a_long_body_waits_for_its_turn_before_it_is_decoded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        assert service.in_flight == 0, "neither admitted nor decoded"
        waits.append(seconds)

    monkeypatch.setattr(body_memory, "LONG_BYTES_AT_ONCE", 0)
    service.bodies = BodiesUnderWay(64 << 20, sleep=sleep)
    async with connected(service.base_url) as wire:
        for size, count in ((0, 0), (BODY_BYTES_MAX, 1)):
            body = json.dumps({"vouchers": [a_payment()]}).encode() + b" " * size
            await wire.send(request("POST", "/v1/vouchers/batch", "token", body))
            assert (await wire.reply()).status == 200
            assert len(waits) == count
    assert service.bodies.bytes == 0
