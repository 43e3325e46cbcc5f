"""Kept-alive connections, on the fast path and the ordinary path: used ones stay open, none is cut during a payment."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from fundledger.app.http.admission.admission import Admission, Owned
from fundledger.app.http.admission.controller import AdmissionController
from fundledger.app.http.admission.hot_keys import HotKeys
from fundledger.app.http.admission.payment_path import PaymentPath
from fundledger.app.http.wire.body_memory import BodiesUnderWay
from fundledger.app.http.wire.connections import Connections
from fundledger.app.http.wire.peers import Peers
from fundledger.app.http.wire.protocol import FastPath, PaymentProtocol
from fundledger.app.http.wire.reply import Reply
from fundledger.ratelimit.shedding.shedder import Shedder
from tests.support.waiting import eventually
from tests.support.wire import Wire, connected, request

KEEPALIVE_S = 0.5
Answer = Callable[[Reply], None]


class Server(SimpleNamespace):
    """A server that answers payments immediately, or when the test releases them."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = AdmissionController(None, Shedder(1.0, 100), HotKeys())
        self.draining = False
        self.connections = Connections(1000, 1000)
        self.bodies = BodiesUnderWay(64 << 20)
        self.peers = Peers(1_000_000)
        self.base_url = ""
        self.holds = False
        self.held: list[Answer] = []
        self.protocols: list[PaymentProtocol[Any]] = []

    def module(self, authorization: str | None) -> str | None:
        return "dev"

    def answered(self, *_: object) -> None: ...


class Path(PaymentPath[Any, bytes, None]):
    """A payment path that charges no account."""

    decode: Callable[[bytes], bytes] = bytes
    to_reply: Callable[[Any, Admission, None], Reply] = lambda *_: Reply(201, b"{}")

    def resolve(self, content: bytes) -> Sequence[Owned]:
        return ()

    def queue(self) -> None:
        if self.service.holds:
            self.service.held.append(self.answer)
        else:
            self.answered(0, None)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()

    async def handle(_: object) -> web.StreamResponse:
        return web.Response(body=b"{}")

    manager = web.Server(handler=handle)
    loop = asyncio.get_running_loop()

    def protocol() -> PaymentProtocol[Any]:
        short: FastPath[Any] = FastPath("/v1/vouchers", Path)
        made = PaymentProtocol(server, short, manager, loop=loop, keepalive_timeout=KEEPALIVE_S, access_log=None)
        server.protocols.append(made)
        return made

    listening = await loop.create_server(protocol, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()
    await manager.shutdown(1)


async def paid(wire: Wire) -> bool:
    await wire.send(request("POST", "/v1/vouchers", "x", b"{}"))
    return (await wire.reply()).status == 201


async def test_a_connection_that_payments_use_is_kept_far_beyond_the_time_of_an_idle_one(server: Server) -> None:
    loop = asyncio.get_running_loop()
    async with connected(server.base_url) as wire:
        until = loop.time() + 4 * KEEPALIVE_S

        async def is_used_until_then() -> bool:
            assert await paid(wire)
            return loop.time() > until

        await eventually(is_used_until_then, "it was used for so long")
        assert await wire.is_closed(), "an idle one is closed"


async def test_each_payment_renews_the_time(server: Server) -> None:
    async with connected(server.base_url) as wire:
        assert await paid(wire)
        protocol = server.protocols[-1]
        for _ in range(3):
            protocol._next_keepalive_close_time = 0.0
            assert await paid(wire)
            assert protocol._next_keepalive_close_time > asyncio.get_running_loop().time()


async def test_a_payment_in_flight_is_not_cut_however_long_it_takes(server: Server) -> None:
    async with connected(server.base_url) as wire:
        assert await paid(wire)
        server.holds = True
        await wire.send(request("POST", "/v1/vouchers", "x", b"{}"))
        await eventually(lambda: server.held, "the payment is in flight")
        protocol = server.protocols[-1]
        for _ in range(3):
            protocol._next_keepalive_close_time = 0.0
            protocol._process_keepalive()
        assert protocol.transport is not None
        server.held.pop()(Reply(201, b"{}"))
        assert (await wire.reply()).status == 201
        server.holds = False
        assert await paid(wire)
