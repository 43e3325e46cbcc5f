"""Stops and replacements of workers under load: requests are completed, and each connection end is announced."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.client import Client, new_id, voucher
from tests.support.running import RunningService
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

CLIENTS = 64
Request = Callable[[], bytes]


@pytest.fixture(scope="module")
async def both() -> AsyncIterator[RunningService]:
    service = RunningService(workers=2, fund=True)
    try:
        await service.start()
        yield service
        if service.is_running():
            assert (await service.verify())["ok"]
    finally:
        await service.remove()


@pytest.fixture
async def running(both: RunningService) -> RunningService:
    if not both.is_running():
        await both.start()
    return both


class Clients:
    """Clients that keep their connections and send the next request when the last one is answered.

    `cut`: requests that were sent completely and whose connection ended without a response.
    """

    def __init__(self, port: int, requests: list[Request]) -> None:
        self.cut: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.closed_by_answer = 0
        self._port = port
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._client(requests[i % len(requests)])) for i in range(CLIENTS)]

    async def answered(self, count: int) -> None:
        wanted = self.statuses.total() + count
        await eventually(lambda: self.statuses.total() >= wanted, f"{count} more answers", 60)

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, request: Request) -> None:
        while not self._stopping.is_set():
            reader, writer = await eventually(self._connected, "a connection, or the end", 120)
            if writer is None:
                return
            try:
                await self._on(reader, writer, request)
            finally:
                writer.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | tuple[None, None] | None:
        try:
            return await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return (None, None) if self._stopping.is_set() else None

    async def _on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        served = 0
        while not self._stopping.is_set():
            sent = request()
            try:
                writer.write(sent)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.cut.append(f"{sent[:40]!r} after {served}: {error!r}")
                return
            served += 1
            self.statuses[int(head.split(b" ", 2)[1])] += 1
            if b"\r\nconnection: close\r\n" in head.lower():
                self.closed_by_answer += 1
                assert await reader.read() == b""
                return


def post(path: str, token: str, body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def account_requests(service: RunningService) -> list[Request]:
    token = service.token
    async with Client(service.base_url, token) as client:
        bank, merchant = await client.bank(), await client.merchant()
    return [
        lambda: post("/v1/vouchers", token, voucher(bank, merchant, 1)),
        lambda: post("/v1/vouchers", token, voucher(bank, "merchant:nobody:available", 1)),
        lambda: get(f"/v1/accounts/{merchant}", token),
        lambda: post("/v1/vouchers/batch", token, {"vouchers": [voucher(bank, merchant, 1)]}),
        lambda: get("/readyz", token),
        lambda: post("/v1/vouchers", "wrong", voucher(bank, merchant, 1)),
    ]


async def fund_requests(service: RunningService) -> list[Request]:
    token = service.token
    merchant = new_id()
    async with Client(service.fund_url, token) as client:
        answer = await client.post("/v1/merchants", {"id": merchant, "name": "A", "currency": "CNY"})
        assert answer.status == 201, answer

    def payment() -> bytes:
        body = {"merchant": merchant, "order_no": new_id(), "amount": 100, "currency": "CNY", "channel": "simulator"}
        return post("/v1/payments", token, body)

    return [payment, lambda: get(f"/v1/merchants/{merchant}", token)]


@pytest.mark.parametrize("which", ["account", "fund"])
async def test_a_stop_under_load_cuts_no_request(running: RunningService, which: str) -> None:
    requests = await (account_requests if which == "account" else fund_requests)(running)
    clients = Clients(running.port if which == "account" else running.fund_port, requests)
    await clients.answered(2000)
    assert clients.closed_by_answer == 0
    code = await running.stop()
    await clients.stop()
    assert (code, clients.cut) == (0, [])
    # Each connection ended after a response with `Connection: close`, and none was cut.
    assert clients.closed_by_answer >= CLIENTS - 2, clients.statuses
    assert clients.statuses[500] == 0
    assert clients.statuses[201] > 100
    await running.start()
    assert (await running.verify())["ok"]


@pytest.mark.parametrize("which", ["account", "fund"])
async def test_the_replacement_of_a_worker_under_load_cuts_no_request(running: RunningService, which: str) -> None:
    requests = await (account_requests if which == "account" else fund_requests)(running)
    clients = Clients(running.port if which == "account" else running.fund_port, requests)
    pids = running.worker_pids if which == "account" else running.fund_pids
    await clients.answered(1000)
    for _ in range(2):
        before = pids()
        os.kill(before[0], signal.SIGTERM)
        await eventually(lambda b=before: b[0] not in pids() and len(pids()) == len(b), "it is replaced", 60)
        await clients.answered(1000)
    await clients.stop()
    assert clients.cut == []
    assert clients.closed_by_answer > 0
    assert (await running.verify())["ok"]


async def test_an_idle_connection_is_closed_and_one_with_half_a_request_is_answered(running: RunningService) -> None:
    token = running.token
    async with Client(running.base_url, token) as client:
        bank, merchant = await client.bank(), await client.merchant()
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", running.port)
    half_reader, half_writer = await asyncio.open_connection("127.0.0.1", running.port)
    for reader, writer in ((idle_reader, idle_writer), (half_reader, half_writer)):
        writer.write(get("/healthz", token))
        assert b"200" in await reader.readuntil(b"}")
    request = post("/v1/vouchers", token, voucher(bank, merchant, 1))
    half_writer.write(request[:-10])
    stopping = asyncio.create_task(running.stop())
    assert await idle_reader.read() == b""
    half_writer.write(request[-10:])
    answer = await half_reader.read()
    assert answer.startswith(b"HTTP/1.1 201"), answer
    assert b"Connection: close" in answer
    assert await stopping == 0
    with contextlib.suppress(OSError):
        idle_writer.close()
        half_writer.close()
    assert "releasing the leases" not in running.log.read_text()


async def test_a_stopped_worker_gives_its_leases_back(running: RunningService) -> None:
    """Another process can then take the lease immediately, before the lease expires."""
    import asyncpg

    connection = await asyncpg.connect(running.dsn)
    try:
        for _ in range(2):
            held = await eventually(lambda: connection.fetchrow(HELD), "a lease is held", 30)
            pid = int(held["holder"].rsplit(":", 1)[1])
            os.kill(pid, signal.SIGTERM)

            async def passed(pid: int = pid) -> bool:
                row = await connection.fetchrow(HELD)
                return row is not None and not row["holder"].endswith(f":{pid}")

            await eventually(passed, "another process holds it", 30)
            await eventually(lambda p=pid: p not in running.worker_pids(), "the worker ends", 60)
    finally:
        await connection.close()
    assert "releasing the leases" not in running.log.read_text()
    assert lost_while_draining(running.log.read_text()) == []


def lost_while_draining(log: str) -> list[str]:
    """Return the leases that stopped workers lost.

    The lease of `buffer_folder` is not counted for running workers, which may lose it on a busy machine.
    """
    draining: set[str] = set()
    lost = []
    for line in log.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            if record.get("event") == "worker_draining":
                draining.add(str(record["worker"]))
            elif record.get("event") == "worker_ready":
                draining.discard(str(record["worker"]))
            elif record.get("event") == "lease_lost" and record["worker"] in draining:
                lost.append(record["job"])
    assert "worker_draining" in log
    return lost


HELD = """SELECT holder FROM daemons.leases
WHERE name = 'hold_expiry' AND holder IS NOT NULL AND expires_at > clock_timestamp()"""
