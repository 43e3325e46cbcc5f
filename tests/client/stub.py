"""A server for responses that a real service rarely sends: it answers each request with the next of its responses."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Say(NamedTuple):
    """A response. `bytes_max`: the connection is cut after so many bytes. `closes`: it is closed after the response."""

    status: int = 200
    body: Any = b"{}"
    headers: Mapping[str, str] = MappingProxyType({})
    bytes_max: int | None = None
    closes: bool = False

    def raw(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} X", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
        return ("\r\n".join(lines).encode() + body)[: self.bytes_max]


NOTHING = None
CUT = Say(bytes_max=0)


def problem(status: int, code: str, **headers: str) -> Say:
    body = {"type": f"urn:fundledger:problem:{code}", "title": "No", "status": status, "detail": "a reason"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Say(status, body, {"Content-Type": "application/problem+json", **named})


class Stub:
    """The server. `says`: the response to each request, in order; the last one is also sent to all later requests.

    A request whose response is NOTHING is not answered.
    """

    def __init__(self, *says: Say | None) -> None:
        self.says: Sequence[Say | None] = says
        self.asked: list[Asked] = []
        self.connections = 0
        self.closed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self) -> None:
        """Close every connection, as a service closes connections that have been idle for a long time."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("Content-Length", 0)))
                method, path, _ = head[0].split(" ")
                self.asked.append(Asked(method, path, headers, body, number))
                say = self.says[min(len(self.asked), len(self.says)) - 1]
                if say is NOTHING:
                    await reader.read(1)
                    return
                writer.write(say.raw())
                if say.closes or say.bytes_max is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            self.closed.set()
