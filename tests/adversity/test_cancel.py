"""Cancelled requests: callers disconnect at any moment, and a retry returns the one true result."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families

from fundledger.app.account.handlers import accounts, holds, vouchers
from fundledger.app.account.server import build
from fundledger.app.account.service import Service
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.problems import BadRequest
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply
from fundledger.ratelimit.classes import ApiClass
from fundledger.security.keys import make_keys
from fundledger.settings import Settings
from tests.adversity.conftest import Tell
from tests.support.client import Client, line, new_id, voucher
from tests.support.database import prove_books
from tests.support.running import RunningService
from tests.support.waiting import eventually

Handler = Callable[[Service, Call], Awaitable[Reply]]
GIVEN_UP_MEAN_S = 0.001
RESETS = 250


@pytest.fixture(params=["lanes", "direct"])
async def worker(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """Build a worker's service without its sockets."""
    make_keys(tmp_path / "keys")
    worker = await build(Settings(data_dir=tmp_path, posting=request.param), database, 0, tmp_path)
    yield worker
    await worker.close()
    await prove_books(database, worker.keys)


class Asking:
    """Requests to one worker, each of which can be cancelled. `given_up` counts the cancelled requests."""

    def __init__(self, worker: Service) -> None:
        self.worker = worker
        self.given_up = 0

    async def ask(self, handler: Handler, body: Any, **path: str) -> Reply:
        admission = Admission("dev", 0.0, None, ApiClass.PAYMENT)
        call = Call("dev", path, {}, CIMultiDict(), json.dumps(body).encode(), admission)
        try:
            return await handler(self.worker, call)
        except BadRequest as bad:
            return bad.reply

    async def give_up(self, chance: random.Random, handler: Handler, body: Any, **path: str) -> None:
        """Begin a request and cancel it, after a few iterations of the event loop or after a random time."""
        asking = asyncio.create_task(self.ask(handler, body, **path))
        if chance.random() < 0.4:
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
        else:
            await asyncio.wait([asking], timeout=chance.expovariate(1 / GIVEN_UP_MEAN_S))
        self.given_up += asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def settle(self, handler: Handler, body: Any, **path: str) -> Reply:
        """Send the request twice more. Assert that both responses are the same and that the second one is a replay."""
        first = await self.ask(handler, body, **path)
        second = await self.ask(handler, body, **path)
        if handler is vouchers.post_batch:
            assert _statuses(first) == _statuses(second), (first.body, second.body)
        else:
            assert first.body == second.body
            if handler is not accounts.open_account:
                assert (second.headers or {}).get("Idempotent-Replay") == "true", (first.body, second.body)
        assert second.status == (422 if first.status == 422 else 200)
        return first

    async def balance(self, account: str) -> dict[str, int]:
        shown = await self.ask(accounts.get_account, None, id=account)
        return dict(json.loads(shown.body)["balance"])


def _statuses(reply: Reply) -> list[tuple[str, str]]:
    return [(item["id"], item["status"]) for item in json.loads(reply.body)["results"]]


def _opening(id_: str, type_: str) -> dict[str, str]:
    return {"id": id_, "owner": id_, "type": type_, "currency": "CNY"}


async def test_a_request_cancelled_at_any_moment_is_answered_when_it_is_asked_again(
    worker: Service, seed: int, tell: Tell
) -> None:
    chance = random.Random(seed)
    asking = Asking(worker)
    posted = held = tried = 0
    await asking.settle(accounts.open_account, _opening("bank", "bank"))
    await asking.settle(accounts.open_account, _opening("m", "merchant_available"))
    funding = voucher("bank", "m", 10_000_000)
    assert (await asking.settle(vouchers.post_one, funding)).status == 201

    async def once(handler: Handler, body: Any, **path: str) -> Reply:
        nonlocal tried
        tried += 1
        await asking.give_up(chance, handler, body, **path)
        return await asking.settle(handler, body, **path)

    for i in range(40):
        paid = voucher("bank", "m", chance.randint(1, 99))
        await once(vouchers.post_one, paid)
        posted += paid["entries"][0]["amount"]
        many = [voucher("bank", "m", 2) for _ in range(20)]
        results = _statuses(await once(vouchers.post_batch, {"vouchers": many, "atomic": i % 2 == 0}))
        assert {status for _, status in results} == {"posted"}
        posted += 40
        if i % 4 == 0:
            assert (await once(vouchers.reverse_voucher, {"id": new_id()}, id=paid["id"])).status in (200, 201)
            posted -= paid["entries"][0]["amount"]
        assert (await once(vouchers.post_one, voucher("m", "bank", 1 << 40))).status == 422
        await once(accounts.open_account, _opening(f"new:{i}", "merchant_available"))
        hold = new_id()
        assert (await once(holds.place_hold, {"id": hold, "account": "m", "amount": 9})).status in (200, 201)
        if i % 3 == 0:
            await once(holds.release_hold, {}, id=hold)
        elif i % 3 == 1:
            taken = voucher("m", "bank", 4)
            assert (await once(holds.capture_hold, {"voucher": taken}, id=hold)).status in (200, 201)
            posted -= 4
        else:
            held += 9
    await worker.drain()
    balance = {"posted": 10_000_000 + posted, "held": held, "pending": 0, "available": 10_000_000 + posted - held}
    assert await asking.balance("m") == balance, f"seed {seed}"
    assert _commands(worker) == 0
    assert asking.given_up > tried // 4, f"seed {seed}: most were answered before they could be given up"
    tell(f"request given up at a random moment ({worker.settings.posting})", asking.given_up, seed)


async def test_callers_that_are_all_gone_leave_an_empty_lane_and_their_vouchers_posted(
    worker: Service, database: str
) -> None:
    asking = Asking(worker)
    await asking.settle(accounts.open_account, _opening("bank", "bank"))
    await asking.settle(accounts.open_account, _opening("m", "merchant_available"))
    paid = [voucher("bank", "m", 1) for _ in range(300)]
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT FROM ledger.sub_accounts FOR UPDATE")
        callers = [asyncio.create_task(asking.ask(vouchers.post_one, body)) for body in paid]
        await eventually(lambda: _commands(worker) == len(paid), "all have been accepted")
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    await other.close()
    await worker.drain()
    assert all(caller.cancelled() for caller in callers)
    assert _commands(worker) == 0
    assert (await asking.balance("m"))["posted"] == len(paid)
    assert {(await asking.ask(vouchers.post_one, body)).status for body in paid} == {200}
    assert (await asking.balance("m"))["posted"] == len(paid)


def _commands(worker: Service) -> int:
    """Return the number of commands in the worker's lanes: those in the queues and those in the database."""
    return sum(sum(msgspec.structs.astuple(lane.statistics())) for lane in worker.lanes)


async def _reset(port: int, sent: bytes, after_s: float) -> None:
    """Send the bytes, and reset the connection `after_s` later."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(sent)
    await asyncio.sleep(after_s)
    writer.transport.abort()


def _request(token: str, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_connection_reset_at_any_moment_doubles_nothing(
    service: RunningService, client: Client, seed: int, tell: Tell
) -> None:
    chance = random.Random(seed)
    mark = new_id()
    bank = await client.open_account(f"reset:{mark}:bank", "bank")
    merchant = await client.open_account(f"reset:{mark}")
    expected = 0
    tried: list[tuple[str, Any, bool]] = []

    async def reset_one() -> None:
        if chance.random() < 0.7:
            body: Any = voucher(bank, merchant, chance.randint(1, 1000))
            path, of = "/v1/vouchers", [body]
        else:
            of = [voucher(bank, merchant, chance.randint(1, 1000)) for _ in range(30)]
            path, body = "/v1/vouchers/batch", {"vouchers": of}
        nonlocal expected
        expected += sum(one["entries"][0]["amount"] for one in of)
        sent = _request(service.token, path, json.dumps(body).encode())
        whole = chance.random() < 0.7
        if not whole:
            sent = sent[: chance.randrange(len(sent))]
        tried.append((path, body, whole))
        await _reset(service.port, sent, chance.uniform(0, 0.01))

    for start in range(0, RESETS, 25):
        await asyncio.gather(*(reset_one() for _ in range(start, min(start + 25, RESETS))))
    posted_before = 0
    for path, body, whole in tried:
        first, second = await client.post(path, body), await client.post(path, body)
        if path == "/v1/vouchers":
            assert (first.status, first.is_replay) in ([(201, False), (200, True)] if whole else [(201, False)]), (
                seed,
                whole,
                first,
            )
            assert (second.status, second.body, second.is_replay) == (200, first.body, True), (seed, second)
            posted_before += first.is_replay
        else:
            assert first.status == second.status == 200, (seed, first, second)
            again = [item.get("replay", False) for item in first.json["results"]]
            assert {item["status"] for item in first.json["results"]} == {"posted"}
            assert all(item["replay"] for item in second.json["results"])
            assert whole or not any(again), "half a request was taken for a whole one"
    assert posted_before > 0, f"seed {seed}: no voucher was accepted before its connection was reset"
    assert (await client.balance(merchant))["posted"] == expected, f"seed {seed}"
    await eventually(lambda: _lanes_are_empty(client), "the lanes are empty")
    tell("connection reset at a random moment", RESETS, seed)


async def test_a_request_in_pieces_that_ends_early_writes_nothing(service: RunningService, client: Client) -> None:
    mark = new_id()
    bank = await client.open_account(f"pieces:{mark}:bank", "bank")
    merchant = await client.open_account(f"pieces:{mark}")
    body = json.dumps({"id": new_id(), "type": "pay", "entries": [line(bank, "debit", 5), line(merchant, "credit", 5)]})
    sent = _request(service.token, "/v1/vouchers", body.encode())
    for end in range(0, len(sent), 7):
        await _reset(service.port, sent[:end], 0)
    assert (await client.balance(merchant))["posted"] == 0
    assert (await client.post("/v1/vouchers", body=body.encode())).status == 201


async def _lanes_are_empty(client: Client) -> bool:
    text = (await client.get("/metrics")).body.decode()
    gauges = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    return gauges["fundledger_lane_waiting_commands"] == gauges["fundledger_lane_in_flight_commands"] == 0
