"""Minimal HTTP/1.1 client of the load drivers: keep-alive connections on one epoll. Of a response, only the status and
the length are parsed.

The client uses plain sockets instead of an event loop: a driver that shares two processors with the service must use
little processor time.
"""

import contextlib
import select
import socket
from types import TracebackType
from typing import Self

from benchmarks.runs import BenchFault

HOST = "127.0.0.1"
_RECEIVE_BYTES = 1 << 18
_BROKEN = 0


class Connection:
    """A connection. The driver sets `sent_ns` to the time at which the outstanding request was sent or due, and to None
    when the connection is idle.

    `answer` is the last response as received.
    """

    __slots__ = ("answer", "blocked", "closed", "received", "sent_ns", "socket", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Do not block: a stalled server accepts no connections, and the driver must not wait for the server.
        self.socket.setblocking(False)
        self.socket.connect_ex((HOST, port))
        self.sent_ns: int | None = None
        self.received = b""
        self.answer = b""
        self.unsent = b""
        self.blocked = False
        self.closed = False


class Wire:
    """Connections of one driver to one local port."""

    def __init__(self, port: int) -> None:
        """Check that the port accepts connections. Raises BenchFault if it does not."""
        try:
            socket.create_connection((HOST, port), timeout=10).close()
        except OSError as error:
            raise BenchFault(f"port {port} accepts no connection: {error}") from None
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
        """Return a connection on which a request can be sent immediately. If the connection cannot be established, the
        first request on it fails.
        """
        connection = Connection(self._port)
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN)
        return connection

    def send(self, connection: Connection, request: bytes, sent_ns: int) -> None:
        """Send a request on an idle connection. `answers` later returns the response or the failure."""
        connection.sent_ns = sent_ns
        connection.unsent = request
        self._flush(connection)

    def answers(self, timeout_s: float) -> list[tuple[Connection, int]]:
        """Return `(connection, status)` for each complete response. The status is 0 if the connection broke during a
        request.
        """
        # Wait with select, because epoll rounds its timeout up to a millisecond.
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
            # Ignore the failure here: the next receive detects and reports it.
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
        """Close a connection, even if it has an outstanding request."""
        connection.closed = True
        self._connections.pop(connection.socket.fileno(), None)
        with contextlib.suppress(OSError):
            connection.socket.close()


def answer_bytes(received: bytes) -> int:
    """Return the total length of the response that begins with `received`. Raises BenchFault if it has no
    Content-Length.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return len(received) + 1
    at = received.find(b"Content-Length: ", 0, end)
    if at < 0:
        raise BenchFault(f"a response without Content-Length: {received[:end]!r}")
    return end + 4 + int(received[at + 16 : received.find(b"\r\n", at)])
