"""The HTTP protocol: the fast path of a payment and the ordinary path give the same responses, in whatever pieces the
bytes of a request arrive.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.client import Client, line, new_id, voucher
from tests.support.running import RunningService
from tests.support.waiting import eventually
from tests.support.wire import Reply, Wire, chunked, connected, request

BALANCE = 1_000_000


@pytest.fixture(scope="module")
async def pair(service: RunningService) -> AsyncIterator[tuple[str, str]]:
    """Open the accounts of two merchants; the first has a large balance."""
    async with Client(service.base_url, service.token) as client:
        yield await client.merchant(BALANCE), await client.merchant()


class Ways:
    """Ways to send one body of `POST /v1/vouchers`, over a used or a new connection."""

    def __init__(self, service: RunningService) -> None:
        self.service = service

    def whole(self, body: bytes, **headers: str) -> bytes:
        return request(
            "POST", "/v1/vouchers", self.service.token, body, {k.replace("_", "-"): v for k, v in headers.items()}
        )

    async def warm(self, wire: Wire) -> None:
        """Make the connection idle and kept alive, so that the next payment takes the fast path."""
        await wire.send(request("GET", "/healthz", self.service.token))
        assert (await wire.reply()).status == 200

    async def at_once(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(self.whole(body))
            return await wire.reply()

    async def on_a_new_connection(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await wire.send(self.whole(body))
            return await wire.reply()

    async def in_pieces(self, body: bytes, size: int = 50) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            sent = self.whole(body)
            for i in range(0, len(sent), size):
                await wire.send(sent[i : i + size])
                await asyncio.sleep(0)
            return await wire.reply()

    async def byte_by_byte(self, body: bytes) -> Reply:
        return await self.in_pieces(body, 1)

    async def head_then_body(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            head, _, _ = self.whole(body).partition(b"\r\n\r\n")
            await wire.send(head + b"\r\n\r\n")
            await self.other_request_is_answered()
            await wire.send(body)
            return await wire.reply()

    async def other_request_is_answered(self) -> None:
        """Wait until the server has read all bytes that were sent before."""
        async with connected(self.service.base_url) as other:
            await self.warm(other)

    async def chunked(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(request("POST", "/v1/vouchers", self.service.token, b"", {"Transfer-Encoding": "chunked"}))
            await wire.send(chunked(body, 100))
            return await wire.reply()

    async def chunked_at_once(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            head = request("POST", "/v1/vouchers", self.service.token, b"", {"Transfer-Encoding": "chunked"})
            await wire.send(head + chunked(body, 1000))
            return await wire.reply()

    async def and_close(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(self.whole(body, Connection="close"))
            reply = await wire.reply()
            assert await wire.is_closed()
            return reply

    async def http_1_0(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await wire.send(request("POST", "/v1/vouchers", self.service.token, body, version="1.0"))
            reply = await wire.reply()
            assert await wire.is_closed()
            return reply

    async def http_1_0_kept_alive(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            sent = request("POST", "/v1/vouchers", self.service.token, body, {"Connection": "keep-alive"}, "1.0")
            await wire.send(sent)
            first = await wire.reply()
            if first.status != 413:
                await self.warm(wire)
            return first

    async def expecting_100(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(self.whole(b"", Expect="100-continue", Content_Length=str(len(body))))
            first = await wire.reply()
            if first.status == 413:
                return first  # a body that is too large is refused before it is sent
            assert first.status == 100
            await wire.send(body)
            return await wire.reply()

    async def expecting_100_without_waiting(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(self.whole(body, Expect="100-continue"))
            reply = await wire.reply()
            return await wire.reply() if reply.status == 100 else reply

    async def behind_a_get(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(request("GET", "/healthz", self.service.token) + self.whole(body))
            assert (await wire.reply()).status == 200
            return await wire.reply()

    async def behind_a_payment(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(self.whole(b"{}") + self.whole(body))
            assert (await wire.reply()).status == 400
            return await wire.reply()

    async def with_a_query(self, body: bytes) -> Reply:
        """Send a request with an empty query, which names the same resource and is not on the fast path."""
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(request("POST", "/v1/vouchers?", self.service.token, body))
            return await wire.reply()

    async def with_an_encoded_path(self, body: bytes) -> Reply:
        async with connected(self.service.base_url) as wire:
            await self.warm(wire)
            await wire.send(request("POST", "/v1/%76ouchers", self.service.token, body))
            return await wire.reply()


WAYS = [
    name
    for name in vars(Ways)
    if not name.startswith("_") and name not in ("whole", "warm", "other_request_is_answered")
]
Asked = Callable[[str, str], bytes]


def good(a: str, b: str) -> bytes:
    return json.dumps(voucher(a, b, 1, reference="r", metadata={"k": 1})).encode()


def large(a: str, b: str) -> bytes:
    entries = [line(a, "debit", 1), line(b, "credit", 1)] * 32
    return json.dumps({"id": new_id(), "type": "pay", "entries": entries, "metadata": {"k": "x" * 4000}}).encode()


REQUESTS: dict[str, tuple[Asked, int]] = {
    "good": (good, 201),
    "large": (large, 201),
    "to nobody": (lambda a, b: json.dumps(voucher(a, "merchant:nobody:ever", 1)).encode(), 422),
    "without money": (lambda a, b: json.dumps(voucher(a, b, 10 * BALANCE)).encode(), 422),
    "unbalanced": (lambda a, b: json.dumps({**voucher(a, b, 1), "entries": [line(a, "debit", 1)] * 2}).encode(), 400),
    "no JSON": (lambda a, b: b"{", 400),
    "empty": (lambda a, b: b"", 400),
    "an unknown field": (lambda a, b: good(a, b)[:-1] + b',"x":1}', 400),
    "too large": (lambda a, b: b" " * (65 << 10), 413),
}


def comparable(reply: Reply) -> tuple[object, ...]:
    """Return a reply without the parts that differ between requests: times, ids, and the tokens that are left."""
    headers = {
        name: value
        for name, value in reply.headers.items()
        if name not in ("date", "connection", "content-length", "ratelimit", "request-id")
    }
    assert reply.headers["request-id"]
    body = re.sub(rb'"request_id":"[^"]*"|"posted_at":"[^"]*"|"accounting_date":"[^"]*"|"id":"[^"]*"', b"", reply.body)
    return reply.status, headers, body


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_gets_the_same_answer(
    service: RunningService, pair: tuple[str, str], way: str, asked: str
) -> None:
    ways = Ways(service)
    body, status = REQUESTS[asked]
    expected = await ways.at_once(body(*pair))
    assert expected.status == status
    if asked == "empty" and way.startswith("chunked"):
        return  # an empty chunked body is the end mark alone, which `chunked` sends
    if asked == "too large" and way == "byte_by_byte":
        return  # 65,000 segments prove no more than `in_pieces` does
    assert comparable(await getattr(ways, way)(body(*pair))) == comparable(expected)


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_gets_the_same_bytes_for_a_repeat(
    service: RunningService, pair: tuple[str, str], way: str
) -> None:
    ways = Ways(service)
    body = good(*pair)
    first = await getattr(ways, way)(body)
    assert (first.status, first.headers.get("idempotent-replay")) == (201, None)
    for other in ("at_once", "in_pieces", way):
        again = await getattr(ways, other)(body)
        assert (again.status, again.headers["idempotent-replay"], again.body) == (200, "true", first.body)


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize("whole", [True, False])
async def test_both_paths_ask_for_the_token(
    service: RunningService, pair: tuple[str, str], token: str | None, whole: bool
) -> None:
    ways = Ways(service)
    body = good(*pair)
    sent = request("POST", "/v1/vouchers", token, body)
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        pieces = [sent] if whole else [sent[:40], sent[40:-30], sent[-30:]]
        for piece in pieces:
            await wire.send(piece)
            await ways.other_request_is_answered()
        reply = await wire.reply()
        assert (reply.status, reply.problem) == (401, "unauthorized")
        assert "www-authenticate" in reply.headers
        await ways.warm(wire)


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}])
async def test_both_paths_refuse_other_media(
    service: RunningService, pair: tuple[str, str], headers: dict[str, str]
) -> None:
    ways = Ways(service)
    sent = ways.whole(good(*pair), **headers)
    if "Content-Type" in headers:
        sent = sent.replace(b"Content-Type: application/json\r\n", b"")
    replies = []
    for cut in (len(sent), 40):
        async with connected(service.base_url) as wire:
            await ways.warm(wire)
            await wire.send(sent[:cut])
            await ways.other_request_is_answered()
            await wire.send(sent[cut:])
            replies.append(comparable(await wire.reply()))
    assert replies[0] == replies[1]
    assert replies[0][0] == 415


# --- Pipelining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 10, 100])
@pytest.mark.parametrize("fresh", [True, False])
async def test_payments_in_one_segment_are_answered_in_order(
    service: RunningService, pair: tuple[str, str], count: int, fresh: bool
) -> None:
    ways = Ways(service)
    bodies = [good(*pair) for _ in range(count)]
    async with connected(service.base_url) as wire:
        if not fresh:
            await ways.warm(wire)
        await wire.send(b"".join(ways.whole(body) for body in bodies))
        replies = [await wire.reply() for _ in bodies]
    assert [reply.status for reply in replies] == [201] * count
    assert [reply.json["id"] for reply in replies] == [json.loads(body)["id"] for body in bodies]


async def test_payments_and_reads_in_one_segment_are_answered_in_order(
    service: RunningService, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    bodies = [good(*pair) for _ in range(5)]
    sent = b""
    expected: list[str] = []
    for body in bodies:
        id_ = json.loads(body)["id"]
        sent += ways.whole(body) + request("GET", f"/v1/vouchers/{id_}", service.token)
        sent += request("GET", f"/v1/accounts/{pair[1]}", service.token) + ways.whole(b"{") + ways.whole(body)
        expected += [id_, id_, pair[1], "400", id_]
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        await wire.send(sent)
        replies = [await wire.reply() for _ in expected]
    assert [str(reply.json.get("id", reply.status)) for reply in replies] == expected
    assert [reply.status for reply in replies] == [201, 200, 200, 400, 200] * 5


async def test_segments_that_cut_requests_anywhere_are_answered_in_order(
    service: RunningService, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    for size in (1000, 333, 97):
        bodies = [good(*pair) for _ in range(6)]
        sent = b"".join(ways.whole(body) + request("GET", "/healthz", service.token) for body in bodies)
        async with connected(service.base_url) as wire:
            await ways.warm(wire)
            for i in range(0, len(sent), size):
                await wire.send(sent[i : i + size])
                await asyncio.sleep(0)
            replies = [await wire.reply() for _ in range(12)]
        assert [reply.status for reply in replies] == [201, 200] * 6
        assert [reply.json["id"] for reply in replies[::2]] == [json.loads(body)["id"] for body in bodies]


async def test_what_follows_a_payment_while_it_is_posted_waits_for_its_answer(
    service: RunningService, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        for follower in (request("GET", "/healthz", service.token), ways.whole(b"{"), ways.whole(good(*pair))):
            body = good(*pair)
            await wire.send(ways.whole(body))
            await wire.send(follower)
            assert (await wire.reply()).json["id"] == json.loads(body)["id"]
            assert (await wire.reply()).status in (200, 400, 201)


async def test_garbage_behind_a_payment_closes_after_the_payments_answer(
    service: RunningService, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    while True:
        async with connected(service.base_url) as wire:
            await ways.warm(wire)
            body = good(*pair)
            await wire.send(ways.whole(body))
            await ways.other_request_is_answered()
            await wire.send(b"this is no request\r\n\r\n")
            reply = await wire.reply()
            assert await wire.is_closed()
        # On a busy machine the payment may be shed.
        if reply.status != 503:
            break
    assert reply.json["id"] == json.loads(body)["id"]


async def test_garbage_in_one_segment_with_a_payment_is_refused_and_nothing_of_it_is_posted(
    service: RunningService, client: Client, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        body = good(*pair)
        await wire.send(ways.whole(body) + b"this is no request\r\n\r\n")
        assert (await wire.reply()).status == 400
        assert await wire.is_closed()
    assert not await posted(client, json.loads(body)["id"])


async def test_close_behind_a_payment_is_answered_before_the_end(
    service: RunningService, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        await wire.send(ways.whole(good(*pair)) + ways.whole(good(*pair), Connection="close"))
        assert [(await wire.reply()).status for _ in range(2)] == [201, 201]
        assert await wire.is_closed()


# --- Clients that disconnect, or are slow ---------------------------------------------------------------------------


async def posted(client: Client, id_: str) -> bool:
    return (await client.get(f"/v1/vouchers/{id_}")).status == 200


@pytest.mark.parametrize("how", ["reset", "half-close", "close"])
async def test_a_payment_is_posted_although_its_client_disconnects_and_a_retry_is_a_replay(
    service: RunningService, client: Client, pair: tuple[str, str], how: str
) -> None:
    ways = Ways(service)
    for _ in range(10):
        body = good(*pair)
        id_ = json.loads(body)["id"]
        async with connected(service.base_url) as wire:
            await ways.warm(wire)
            await wire.send(ways.whole(body))
            if how == "half-close":
                wire.writer.write_eof()
            elif how == "reset":
                await asyncio.sleep(0)
                wire.abort()
        if how != "reset":
            # Bytes sent before an orderly close have arrived; a reset may discard them.
            await eventually(lambda id_=id_: posted(client, id_), "the voucher is posted")
            again = await client.post("/v1/vouchers", body=body)
            assert (again.status, again.is_replay) == (200, True)
        else:
            assert (await client.post("/v1/vouchers", body=body)).status in (200, 201)
            again = await client.post("/v1/vouchers", body=body)
            assert (again.status, again.is_replay) == (200, True)


async def test_a_slow_client_keeps_no_other_client_waiting(
    service: RunningService, client: Client, pair: tuple[str, str]
) -> None:
    ways = Ways(service)
    body = good(*pair)
    sent = ways.whole(body)
    slow = []
    for i in range(20):
        context = connected(service.base_url)
        wire = await context.__aenter__()
        slow.append((context, wire))
        await wire.send(sent[: 10 + 20 * i])
    assert [(await client.pay(*pair, 1)).status for _ in range(20)] == [201] * 20
    context, wire = slow[-1]
    await wire.send(sent[10 + 20 * 19 :])
    assert (await wire.reply()).status == 201
    for context, _ in slow:
        await context.__aexit__(None, None, None)


async def test_a_client_that_does_not_read_loses_nothing(
    service: RunningService, client: Client, pair: tuple[str, str]
) -> None:
    """The responses wait until the client reads. The client then gets all of them, in order."""
    ways = Ways(service)
    bodies = [good(*pair) for _ in range(300)]
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        for body in bodies:
            wire.writer.write(ways.whole(body))
        await eventually(lambda: posted(client, json.loads(bodies[0])["id"]), "the first one is posted")
        replies = [await wire.reply() for _ in bodies]
    assert [reply.json["id"] for reply in replies] == [json.loads(body)["id"] for body in bodies]


async def test_a_connection_is_used_repeatedly(service: RunningService, pair: tuple[str, str]) -> None:
    ways = Ways(service)
    async with connected(service.base_url) as wire:
        for i in range(60):
            body = good(*pair) if i % 3 else b"{"
            await wire.send(ways.whole(body))
            assert (await wire.reply()).status == (201 if i % 3 else 400)
            if i % 5 == 0:
                await ways.warm(wire)


async def test_another_expectation_is_refused(service: RunningService, pair: tuple[str, str]) -> None:
    ways = Ways(service)
    async with connected(service.base_url) as wire:
        await ways.warm(wire)
        await wire.send(ways.whole(good(*pair), Expect="200-ok"))
        assert (await wire.reply()).status == 417
