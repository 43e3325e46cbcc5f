"""Limits of connections and bodies: idle connections are closed first, and requests in flight are not cut."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fundledger.app.http.problems import BadRequest
from fundledger.app.http.wire.body_memory import BodiesUnderWay, Body
from fundledger.app.http.wire.connections import Connections
from fundledger.app.http.wire.reply import Reply
from tests.app.test_keepalive import Server, paid
from tests.app.test_keepalive import server as server  # noqa: PLC0414 - a fixture
from tests.support.client import Client
from tests.support.running import RunningService
from tests.support.waiting import eventually
from tests.support.wire import Wire, connected, request


@contextlib.asynccontextmanager
async def connected_from(address: str, base_url: str) -> AsyncIterator[Wire]:
    parts = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=(address, 0))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def many(stack: contextlib.AsyncExitStack, server: Server, count: int, address: str = "127.0.0.1") -> list[Wire]:
    return [await stack.enter_async_context(connected_from(address, server.base_url)) for _ in range(count)]


async def test_the_connection_that_was_idle_for_longest_makes_room(server: Server) -> None:
    server.connections = Connections(4, 4)
    async with contextlib.AsyncExitStack() as stack:
        wires = await many(stack, server, 4)
        await eventually(lambda: len(server.connections) == 4, "all are connected")
        for wire in (wires[0], wires[2], wires[3]):
            assert await paid(wire)
        (new,) = await many(stack, server, 1)
        assert await paid(new)
        assert await wires[1].is_closed()
        for wire in (wires[0], wires[2], wires[3]):
            assert await paid(wire)
    assert server.connections.closed == {"idle": 1, "refused": 0}
    await eventually(lambda: len(server.connections) == 0, "none is counted any more")


async def test_what_is_under_way_is_not_cut_and_a_new_connection_is_answered_503(server: Server) -> None:
    server.connections = Connections(3, 3)
    server.holds = True
    async with contextlib.AsyncExitStack() as stack:
        wires = await many(stack, server, 3)
        for wire in wires:
            await wire.send(request("POST", "/v1/vouchers", "x", b"{}"))
        await eventually(lambda: len(server.held) == 3, "all are under way")
        (new,) = await many(stack, server, 1)
        reply = await new.reply()
        assert (reply.status, reply.problem, reply.headers["retry-after"]) == (503, "unavailable", "1")
        assert reply.headers["connection"] == "close"
        assert await new.is_closed()
        for answer in server.held:
            answer(Reply(201, b"{}"))
        for wire in wires:
            assert (await wire.reply()).status == 201
    assert server.connections.closed == {"idle": 0, "refused": 1}


async def test_one_address_cannot_take_the_connections_of_another(server: Server) -> None:
    server.connections = Connections(6, 4)
    async with contextlib.AsyncExitStack() as stack:
        (honest,) = await many(stack, server, 1)
        assert await paid(honest)
        await many(stack, server, 40, "127.0.0.2")
        await eventually(lambda: server.connections.closed["idle"] == 36, "36 of them made room")
        assert await paid(honest)
        (other,) = await many(stack, server, 1)
        assert await paid(other)
        assert server.connections.closed["refused"] == 0


async def test_a_request_that_never_ends_is_idle(server: Server) -> None:
    server.connections = Connections(2, 2)
    async with contextlib.AsyncExitStack() as stack:
        slow = await many(stack, server, 2)
        for wire in slow:
            await wire.send(b"POST /v1/vouchers HTTP/1.1\r\nHost: x\r\nX: ")
        for _ in range(5):
            (new,) = await many(stack, server, 1)
            assert await paid(new)


async def test_with_few_descriptors_idle_connections_take_neither_a_worker_nor_its_metrics() -> None:
    async with RunningService(workers=2) as own:
        assert own.process is not None
        before = own.worker_pids()
        resource.prlimit(own.process.pid, resource.RLIMIT_NOFILE, (300, 300))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(set(own.worker_pids()) - set(before)) == 2, "both are started again", 60)
        await eventually(lambda: _ready_twice(own), "both serve", 60)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(700):
                await stack.enter_async_context(connected(own.base_url))
            for _ in range(20):
                async with Client(own.base_url, own.token, timeout_s=20) as client:
                    assert (await client.pay(await client.bank(), await client.merchant(), 1)).status == 201
                    page = await client.get("/metrics")
                    assert page.status == 200
                    assert b"fundledger_workers 2.0" in page.body
            assert b'fundledger_connections_closed_total{reason="idle"}' in page.body
        assert len(set(own.worker_pids()) - set(before)) == 2
        assert "Traceback" not in own.log.read_text()
        assert (await own.verify())["ok"]


async def _ready_twice(own: RunningService) -> bool:
    for _ in range(12):
        try:
            async with Client(own.base_url, None, timeout_s=5) as client:
                if (await client.get("/readyz")).status != 200:
                    return False
        except OSError:
            return False
    return True


# --- Bodies ---------------------------------------------------------------------------------------------------------

KB = 1 << 10


def takes(bodies: BodiesUnderWay, body: Body, size: int) -> bool:
    try:
        bodies.take(body, size)
    except BadRequest as bad:
        assert bad.status == 503
        return False
    return True


async def test_long_bodies_keep_out_neither_short_ones_nor_those_of_other_callers() -> None:
    bodies = BodiesUnderWay(1 << 20)
    mine = [Body("mine") for _ in range(8)]
    assert [takes(bodies, body, 100 * KB) for body in mine] == [True] * 2 + [False] * 6
    yours = [Body("yours") for _ in range(8)]
    assert [takes(bodies, body, 100 * KB) for body in yours] == [True] * 2 + [False] * 6
    assert [takes(bodies, body, 100 * KB) for body in [Body("theirs") for _ in range(3)]] == [True, False, False]
    short = [Body("mine") for _ in range(10)]
    assert [takes(bodies, body, 50 * KB) for body in short] == [True] * 10
    for body in (*mine, *yours, *short):
        bodies.give_back(body)
    assert bodies.bytes == 100 * KB
    assert takes(bodies, mine[0], 100 * KB)


async def test_long_bodies_of_a_caller_that_has_sent_too_many_wait_and_those_of_other_callers_do_not() -> None:
    now, waits = 1000.0, []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def turn(caller: str, size: int) -> None:
        body = Body(caller)
        assert takes(bodies, body, size)
        await bodies.turn(body)
        bodies.give_back(body)

    bodies = BodiesUnderWay(1 << 30, lambda: now, sleep)
    for _ in range(16):
        await turn("mine", 8_000_000)
    assert waits == [], "128 MB at one time"
    await turn("mine", 6_000_000)
    await turn("mine", 6_000_000)
    assert waits == pytest.approx([0.5, 1.0]), "12 MB in each second"
    await turn("mine", 64 * KB)
    await turn("yours", 8_000_000)
    assert len(waits) == 2, "neither a short body nor that of another caller waits"
    now += 2.0
    await turn("mine", 12_000_000)
    await turn("mine", 1_200_000)
    assert waits[2:] == pytest.approx([0.1])


async def test_uploads_that_never_end_take_a_bounded_memory_and_leave_room_for_others() -> None:
    async with RunningService(workers=1, env={"FUNDLEDGER_BODIES_MB_MAX": "32"}) as own:
        async with Client(own.base_url, own.token) as client:
            a, b = await client.merchant(100), await client.merchant()
            assert (await client.pay(a, b, 1)).status == 201
            (pid,) = own.worker_pids()
            before = _resident(pid)
            async with contextlib.AsyncExitStack() as stack:
                statuses = await asyncio.gather(
                    *[_upload(await stack.enter_async_context(connected(own.base_url)), own.token) for _ in range(40)]
                )
                assert statuses.count(503) >= 36, statuses
                assert _resident(pid) - before < 80 << 20
                assert (await client.pay(a, b, 1)).status == 201
            await eventually(lambda: _resident(pid) - before < 40 << 20, "memory is given back", 40)
        assert (await own.verify())["ok"]
        assert own.worker_pids() == [pid]


async def _upload(wire: Wire, token: str) -> int | None:
    """Send a body of 8 MB except for its end.

    Return the status if the service responds early, None if it waits for the rest of the body.
    """
    body = b'{"vouchers":[' + b" " * (8_000_000 - 200)
    head = request("POST", "/v1/vouchers/batch", token, b"", {"Content-Length": "8000000"})
    with contextlib.suppress(ConnectionError):
        await wire.send(head + body)
    try:
        async with asyncio.timeout(5):
            return (await wire.reply()).status
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return None


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
