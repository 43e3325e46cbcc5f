"""Kept-alive HTTP/1.1 connections on one epoll: a request goes out, its status comes back, nothing else is looked at.

Plain sockets instead of an event loop: a driver that shares two processors with what it measures must cost little.
"""

import contextlib
import select
import socket
from types import TracebackType
from typing import Self

from fundledger.benchmarks.runs import BenchFault

HOST = "127.0.0.1"
_RECEIVE_BYTES = 1 << 18
_BROKEN = 0


class Connection:
    """`sent_ns` belongs to the driver: when the outstanding request was sent, or was meant to be; None: idle.
    `answer` is the last one, as it came."""

    __slots__ = ("answer", "blocked", "closed", "received", "sent_ns", "socket", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A server that stands still takes no connections; its driver may not stand still with it.
        self.socket.setblocking(False)
        self.socket.connect_ex((HOST, port))
        self.sent_ns: int | None = None
        self.received = b""
        self.answer = b""
        self.unsent = b""
        self.blocked = False
        self.closed = False


class Wire:
    """The connections of one driver to one port of this machine."""

    def __init__(self, port: int) -> None:
        """Raises BenchFault when nobody listens."""
        try:
            socket.create_connection((HOST, port), timeout=10).close()
        except OSError as error:
            raise BenchFault(f"port {port} takes no connection: {error}") from None
        self._port = port
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in list(self._connections.values()):
            self.drop(connection)
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._connections)

    def connect(self) -> Connection:
        """A connection that may be used at once; one that does not come about breaks."""
        connection = Connection(self._port)
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN)
        return connection

    def send(self, connection: Connection, request: bytes, sent_ns: int) -> None:
        """A whole request on an idle connection; its answer, or its break, comes out of `answers`."""
        connection.sent_ns = sent_ns
        connection.unsent = request
        self._flush(connection)

    def answers(self, timeout_s: float) -> list[tuple[Connection, int]]:
        """Connections whose answer is complete, with its status; 0: the connection broke while a request was out."""
        # epoll rounds its timeout up to a millisecond, select does not.
        if timeout_s > 0:
            select.select([self._epoll], [], [], timeout_s)
        answered = []
        for handle, event in self._epoll.poll(0):
            connection = self._connections[handle]
            if event & select.EPOLLOUT:
                self._flush(connection)
            if event & ~select.EPOLLOUT:
                outstanding = connection.sent_ns is not None
                status = self._receive(connection)
                if status is not None and outstanding:
                    answered.append((connection, status))
        return answered

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The break is told by the next receive, which sees it too.
            sent = len(connection.unsent)
        left = connection.unsent[sent:]
        if bool(left) != connection.blocked:
            connection.blocked = bool(left)
            events = select.EPOLLIN | (select.EPOLLOUT if left else 0)
            self._epoll.modify(connection.socket.fileno(), events)
        connection.unsent = left

    def _receive(self, connection: Connection) -> int | None:
        try:
            got = connection.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            got = b""
        if not got:
            self.drop(connection)
            return _BROKEN
        if connection.received:
            got = connection.received + got
        if len(got) < answer_bytes(got):
            connection.received = got
            return None
        connection.received = b""
        connection.answer = got
        return int(got[9:12])

    def drop(self, connection: Connection) -> None:
        """Hang up, whatever is out."""
        connection.closed = True
        self._connections.pop(connection.socket.fileno(), None)
        with contextlib.suppress(OSError):
            connection.socket.close()


def answer_bytes(received: bytes) -> int:
    """How long the answer will be that begins like this. Raises BenchFault when its length is not told."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return len(received) + 1
    at = received.find(b"Content-Length: ", 0, end)
    if at < 0:
        raise BenchFault(f"an answer without a length: {received[:end]!r}")
    return end + 4 + int(received[at + 16 : received.find(b"\r\n", at)])
