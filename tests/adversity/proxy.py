"""A proxy for the Postgres protocol on a unix socket, which breaks the connection at an exact place.

It finds only the boundaries of messages. All contents, also the password exchange, pass through unchanged.
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
"""Part of the name of the connection of a session on which each query is a transaction of its own."""


class Way(Enum):
    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True)
class Message:
    """A message of the protocol.

    - `kind`: the letter of the message type, empty for the first message of a connection
    - `raw`: all bytes of the message
    - `commits`: the server commits when it receives the message: a COMMIT, or the end of a query that is a transaction
      of its own
    - `writes`: the message is the first one of such a query
    """

    way: Way
    kind: str
    raw: bytes
    commits: bool = False
    writes: bool = False


@dataclass(frozen=True)
class Cut:
    """A cut of the connection after `passing` bytes of the message.

    With `late`, only the connection of the client ends. The server receives all bytes that the client has sent when the
    event is set. `then` is the next fault.
    """

    passing: int = 0
    late: asyncio.Event | None = None
    then: "Fault | None" = None


Fault = Callable[[Message], Cut | None]


def cut_before_commit() -> Fault:
    """Cut before the server receives the COMMIT."""
    return lambda message: Cut() if message.commits else None


def cut_with_commit() -> Fault:
    """Cut at the moment at which the server receives the COMMIT."""
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
    """Cut the connection of the client at the commit. The server receives the commit when the event is set."""
    return lambda message: Cut(late=until) if message.commits else None


def late_write(until: asyncio.Event) -> Fault:
    """Cut the connection of the client at a query that commits itself. The server receives it when the event is set."""
    return lambda message: Cut(late=until) if message.writes else None


def cut_at_message(number: int, share: float = 0.0) -> Fault:
    """Let the first `number` messages pass, and the part `share` of the next one. With 0, no message is truncated."""
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
    """Apply the faults in order, each after the previous one has cut."""
    first, *rest = faults

    def fault(message: Message) -> Cut | None:
        cut = first(message)
        return replace(cut, then=one_after_the_other(*rest)) if cut is not None and rest else cut

    return fault


@dataclass(eq=False)
class _Link:
    """One connection of a client, and the connection to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    unlocked: bool = False
    client_gone: bool = False
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def cut(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """A proxy for the server of `dsn`. `self.dsn` names the same database through the proxy.

    - `fault`: is called with each message and may return a cut, whose `then` is the next fault
    - `cuts`: the number of cuts
    - `refusing`: new connections are closed immediately
    - `lingering`: a connection that the server has ended stays open on the side of the client
    - `delay_s`: the delay of every message
    - `recorded`: the messages since `record()`
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
        """Cut every connection now, also within a message."""
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
    """Return the next message. `previous` is the kind of the message before, None before the first one of a client."""
    kind = b"" if previous is None else await reader.readexactly(1)
    length = await reader.readexactly(4)
    rest = await reader.readexactly(struct.unpack("!i", length)[0] - 4)
    if way is Way.TO_CLIENT:
        return Message(way, kind.decode("latin-1"), kind + length + rest)
    commits = (kind == b"Q" and rest.upper().startswith(b"COMMIT")) or (unlocked and kind == b"S" and previous == "E")
    return Message(way, kind.decode("latin-1"), kind + length + rest, commits, unlocked and kind == b"B")
