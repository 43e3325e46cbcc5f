"""Credentials in requests: no error message contains them."""

import asyncio

import pytest

from tests.support.client import Client
from tests.support.running import RunningService
from tests.support.waiting import eventually
from tests.support.wire import connected, request

SECRET = b"a-secret-that-nobody-else-may-read"
HEAD = b"Host: x\r\nAuthorization: Bearer " + SECRET + b"\r\n"
MALFORMED = {
    "line feeds alone": (b"POST /v1/vouchers HTTP/1.1\r\n" + HEAD).replace(b"\r\n", b"\n") + b"\n{}",
    "a line feed behind the request line": b"POST /v1/vouchers HTTP/1.1\n" + HEAD + b"\r\n",
    "credentials in the request line": b"GET /healthz Authorization: Bearer " + SECRET + b" HTTP/1.1\r\n\r\n",
    "no version": b"GET /healthz Authorization:" + SECRET + b"\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n " + SECRET + b"\r\n\r\n",
    "a folded header behind it": b"GET /v1/accounts/a HTTP/1.1\r\n" + HEAD + b" folded: yes\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\n" + HEAD + b"Bearer " + SECRET + b"\r\n\r\n",
    "a control character": b"GET /healthz HTTP/1.1\r\nAuthorization: Bearer \x01" + SECRET + b"\r\n\r\n",
    "a NUL": b"GET /healthz HTTP/1.1\r\nAuthorization: Bearer " + SECRET + b"\x00\r\n\r\n",
    "a name with a blank": b"GET /healthz HTTP/1.1\r\nAuthorization : Bearer " + SECRET + b"\r\n\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nAuthorization: Bearer " + SECRET * 600 + b"\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\n" + (b"Authorization: Bearer " + SECRET + b"\r\n") * 500 + b"\r\n",
    "two lengths": b"POST /v1/vouchers HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a bad chunk": b"POST /v1/vouchers HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + SECRET + b"\r\n",
    "a bad trailer": b"POST /v1/vouchers HTTP/1.1\r\n"
    + HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\nBearer "
    + SECRET
    + b"\r\n\r\n",
    "HTTP/0.9": b"GET /healthz HTTP/0.9\r\n" + HEAD + b"\r\n",
    "garbage": SECRET * 100 + b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("used_before", [False, True], ids=["on a new connection", "on one that was used before"])
async def test_no_answer_and_no_log_line_repeats_the_credentials(
    service: RunningService, sent: bytes, used_before: bool
) -> None:
    pids = service.worker_pids()
    async with connected(service.base_url) as wire:
        if used_before:
            await wire.send(request("GET", "/healthz", None))
            assert (await wire.reply()).status == 200
        await wire.send(sent)
        wire.writer.write_eof()
        async with asyncio.timeout(60):
            answer = await _all_of(wire.reader)
    assert SECRET not in answer
    assert b" 200 " not in answer[:20]
    assert SECRET.decode() not in service.log.read_text(errors="replace")
    assert service.worker_pids() == pids


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    found = b""
    try:
        while more := await reader.read(65536):
            found += more
    except ConnectionResetError:
        pass
    return found


async def test_http_0_9_is_answered_with_a_problem_on_a_connection_that_is_closed(service: RunningService) -> None:
    async with connected(service.base_url) as wire:
        await wire.send(b"GET /healthz HTTP/0.9\r\n\r\n")
        async with asyncio.timeout(60):
            answer = await _all_of(wire.reader)
        assert b" 400 " in answer.split(b"\r\n")[0]
        assert b"alive" not in answer


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Encoding: identity\r\nContent-Encoding: gzip",
        "Content-Encoding: identity, gzip",
    ],
)
@pytest.mark.parametrize("path", ["/v1/vouchers", "/v1/holds"])
async def test_every_header_of_a_name_is_looked_at(service: RunningService, path: str, lines: str) -> None:
    first, _, second = lines.partition("\r\n")
    name, _, value = first.partition(": ")
    async with connected(service.base_url) as wire:
        await wire.send(request("GET", "/healthz", None))
        assert (await wire.reply()).status == 200
        sent = request("POST", path, service.token, b"{}", {name: value})
        await wire.send(sent.replace(b"\r\n\r\n", b"\r\n" + second.encode() + b"\r\n\r\n", 1) if second else sent)
        reply = await wire.reply()
        assert (reply.status, reply.problem) == (415, "unsupported-media-type")


async def test_a_long_name_is_cut_where_it_is_repeated(client: Client) -> None:
    answer = await client.get("/v1/accounts/a?" + "q" * 6000 + "=1")
    assert answer.status == 400
    assert len(answer.body) < 500


async def test_an_upload_that_breaks_off_is_one_line_and_no_traceback(service: RunningService, client: Client) -> None:
    before = len(service.log.read_text(errors="replace"))

    def lines() -> list[str]:
        return [
            one for one in service.log.read_text(errors="replace")[before:].splitlines() if "request_aborted" in one
        ]

    async def uploaded() -> list[str]:
        # A busy worker may not have read the request before the connection breaks off. Then nothing is logged.
        for path in ("/v1/vouchers/batch", "/v1/holds"):
            async with connected(service.base_url) as wire:
                await wire.send(request("POST", path, service.token, b'{"vouchers":[', {"Content-Length": "60000"}))
                assert (await client.get("/healthz")).status == 200
                wire.abort()
        return lines()

    await eventually(uploaded, "the upload is logged")
    assert "Traceback" not in service.log.read_text(errors="replace")[before:]
    assert all(len(line) < 400 for line in lines())
