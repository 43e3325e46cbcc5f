"""HTTP/1.1 without a library: requests and responses byte by byte."""

import asyncio
import json as json_
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

WITHIN_S = 20.0


class Reply(NamedTuple):
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json_.loads(self.body)

    @property
    def problem(self) -> str:
        return str(self.json["type"]).rpartition(":")[2]


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, sent: bytes) -> None:
        self.writer.write(sent)
        await self.writer.drain()

    async def reply(self) -> Reply:
        """Return the next response; a `100 Continue` before it is a response of its own."""
        async with asyncio.timeout(WITHIN_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            version, status, *_ = first.split(" ")
            assert version in ("HTTP/1.1", "HTTP/1.0"), head
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if status == "100":
                return Reply(100, headers, b"")
            return Reply(int(status), headers, await self.reader.readexactly(int(headers["content-length"])))

    async def is_closed(self) -> bool:
        """Wait for the other side to close; discard all bytes before that."""
        async with asyncio.timeout(WITHIN_S):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionResetError:
                pass
            return True

    def abort(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(base_url: str) -> AsyncIterator[Wire]:
    parts = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError, TimeoutError):
            await writer.wait_closed()


def request(
    method: str,
    path: str,
    token: str | None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    version: str = "1.1",
) -> bytes:
    """Return a whole request, with a Content-Length unless `headers` state how the body is sent."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost"]
    given = {name.lower() for name in headers or {}}
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append("Content-Type: application/json")
        if not given & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in the chunked transfer coding."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
