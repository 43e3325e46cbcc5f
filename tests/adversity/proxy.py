"""A Postgres wire proxy on a unix socket that breaks the connection at an exact place.

It parses only the boundaries of messages: the password exchange and all other contents pass through unchanged.
"""

import asyncio
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

from tests.support.running import short_folder

SOCKET = ".s.PGSQL.5432"
UNLOCKED = b"(unlocked)"
"""Part of the name of a session's connection on which each statement is a transaction of its own."""


class Way(Enum):
    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True)
class Message:
    """A message. `kind` is the protocol's letter, empty for the first message of a connection; `raw` is all of it.

    `commits`: the server commits when it receives this message, a COMMIT or the end of a statement that is a
    transaction of its own. `writes`: this is the first message of such a statement.
    """

    way: Way
    kind: str
    raw: bytes
    commits: bool = False
    writes: bool = False


@dataclass(frozen=True)
class Cut:
    """The end of the connection, after `passing` bytes of the message.

    With `late` the client's side ends immediately; when the event is set, the server receives all bytes that the client
    had sent. `then` is the next fault.
    """

    passing: int = 0
    late: asyncio.Event | None = None
    then: "Fault | None" = None


Fault = Callable[[Message], Cut | None]


def cut_before_commit() -> Fault:
    """Cut before the server receives the COMMIT."""
    return lambda message: Cut() if message.commits else None


def cut_with_commit() -> Fault:
    """Cut in the moment in which the server receives the COMMIT."""
    return lambda message: Cut(len(message.raw)) if message.commits else None


def cut_after_commit() -> Fault:
    """Cut before the client receives the result of the COMMIT."""
    sent = False

    def fault(message: Message) -> Cut | None:
        nonlocal sent
        sent = sent or message.commits
        return Cut() if sent and message.way is Way.TO_CLIENT else None

    return fault


def late_commit(until: asyncio.Event) -> Fault:
    """Cut the client off at its commit, which reaches the server long after."""
    return lambda message: Cut(late=until) if message.commits else None


def late_write(until: asyncio.Event) -> Fault:
    """Cut the client off at a statement that is its own transaction; the server receives it later."""
    return lambda message: Cut(late=until) if message.writes else None


def cut_at_message(number: int, share: float = 0.0) -> Fault:
    """Let the first `number` messages pass, and this share of the next one: 0 is a clean cut, more truncates it."""
    seen = 0

    def fault(message: Message) -> Cut | None:
        nonlocal seen
        seen += 1
        return None if seen <= number else Cut(int(len(message.raw) * share))

    return fault


def cut_at_byte(way: Way, number: int) -> Fault:
    """Let only the first `number` bytes of one direction pass."""
    left = number

    def fault(message: Message) -> Cut | None:
        nonlocal left
        if message.way is not way:
            return None
        if left < len(message.raw):
            return Cut(left)
        left -= len(message.raw)
        return None

    return fault


def one_after_the_other(*faults: Fault) -> Fault:
    """Apply each fault when the one before it has cut."""
    first, *rest = faults

    def fault(message: Message) -> Cut | None:
        cut = first(message)
        return replace(cut, then=one_after_the_other(*rest)) if cut is not None and rest else cut

    return fault


@dataclass(eq=False)
class _Link:
    """One client connection and its server connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    unlocked: bool = False
    client_gone: bool = False
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def cut(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """A proxy for the server of `dsn`; `self.dsn` names the same database through the proxy.

    `fault` decides about each message; when it has cut, its `then` replaces it. `cuts` counts them. While `refusing`,
    new connections are closed immediately. While `lingering`, a connection that the server ends stays open for its
    client. `delay_s` delays every message. `recorded` holds the messages since `record()`.
    """

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._upstream = Path(parse_qs(parts.query)["host"][0]) / SOCKET
        self._folder = short_folder()
        self.dsn = parts._replace(query=f"host={quote(str(self._folder))}").geturl()
        self.fault: Fault | None = None
        self.refusing = False
        self.lingering = False
        self.delay_s = 0.0
        self.cuts = 0
        self.refused = 0
        self.recorded: list[Message] = []
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self._folder / SOCKET))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        pumps = [pump for link in self._links for pump in link.pumps]
        self.cut_all()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def record(self) -> None:
        self.recorded = []

    def go_away(self) -> None:
        """Cut all connections, and refuse new ones."""
        self.refusing = True
        self.cut_all()

    def come_back(self) -> None:
        self.refusing = False

    def cut_all(self) -> None:
        """Cut every connection now, at any message."""
        for link in list(self._links):
            link.cut()

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.refused += 1
            client.close()
            return
        try:
            server_reader, server = await asyncio.open_unix_connection(str(self._upstream))
        except OSError:
            client.close()
            return
        link = _Link(client, server)
        self._links.add(link)
        ways = ((Way.TO_SERVER, client_reader, server), (Way.TO_CLIENT, server_reader, client))
        link.pumps = [asyncio.create_task(self._pump(link, *way)) for way in ways]
        await asyncio.gather(*link.pumps, return_exceptions=True)
        self._links.discard(link)

    async def _pump(self, link: _Link, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        previous = None if way is Way.TO_SERVER else ""
        try:
            while True:
                message = await _read(reader, way, previous, unlocked=link.unlocked)
                if message.kind == "" and UNLOCKED in message.raw:
                    link.unlocked = True
                previous = message.kind
                self.recorded.append(message)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                cut = None if self.fault is None else self.fault(message)
                if cut is None:
                    if way is Way.TO_SERVER or not link.client_gone:
                        writer.write(message.raw)
                        await writer.drain()
                    continue
                self.fault = cut.then
                self.cuts += 1
                if cut.late is not None:
                    link.client_gone = True
                    link.client.close()
                    await cut.late.wait()
                    writer.write(message.raw + await reader.read())
                    # The server's response is still read, so that a test can see that the commit has happened.
                    writer.write_eof()
                    await link.pumps[1]
                else:
                    writer.write(message.raw[: cut.passing])
                return
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            if way is Way.TO_SERVER or not self.lingering:
                link.cut()


async def _read(reader: asyncio.StreamReader, way: Way, previous: str | None, *, unlocked: bool) -> Message:
    """Return the next message after one of kind `previous`, which is None before the first one of a client."""
    kind = b"" if previous is None else await reader.readexactly(1)
    length = await reader.readexactly(4)
    rest = await reader.readexactly(struct.unpack("!i", length)[0] - 4)
    if way is Way.TO_CLIENT:
        return Message(way, kind.decode("latin-1"), kind + length + rest)
    commits = (kind == b"Q" and rest.upper().startswith(b"COMMIT")) or (unlocked and kind == b"S" and previous == "E")
    return Message(way, kind.decode("latin-1"), kind + length + rest, commits, unlocked and kind == b"B")
