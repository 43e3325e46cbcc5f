"""HTTP wire level: limits on the client connections of a worker, in total and for each peer.

A worker reserves file descriptors for its database, its store, its sockets and its log. So it accepts fewer connections
than it has descriptors. At the limit, the connections that have been idle longest are closed, so that a new connection
has room. If no connection is idle, the new connection is answered 503 and closed.
"""

import logging
import resource
from typing import Final, Protocol

DESCRIPTORS_KEPT: Final = 128
"""Number of file descriptors that are reserved for the log and for sockets to the store, the supervisor and the other
service. One more descriptor is reserved for each database connection.
"""
CONNECTIONS_MIN: Final = 16
AT_ONCE: Final = 64
"""At the limit, one in AT_ONCE idle connections is closed. So one scan of all connections makes room for many new
connections.
"""
IDLE: Final = "idle"
REFUSED: Final = "refused"
_log = logging.getLogger(__name__)


class Connection(Protocol):
    """The methods of a client connection that `Connections` calls."""

    def idle_since(self) -> float | None:
        """Return a time that orders idle connections by their last use. Return None while the connection is busy."""

    def force_close(self) -> None:
        """Close the connection without an answer."""


class Connections:
    """The open connections. `closed` counts connections closed to make room (IDLE) or not accepted (REFUSED)."""

    def __init__(self, most: int, of_a_peer: int) -> None:
        self.most = most
        self.of_a_peer = of_a_peer
        self.closed: dict[str, int] = {IDLE: 0, REFUSED: 0}
        self._open: dict[Connection, str] = {}
        self._peers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: Connection, peer: str) -> bool:
        """Count a new connection. At a limit, close idle connections first. Return False if there is still no room."""
        if self._peers.get(peer, 0) >= self.of_a_peer:
            self._close_idle(peer)
        elif len(self._open) >= self.most:
            self._close_idle(None)
        if self._peers.get(peer, 0) >= self.of_a_peer or len(self._open) >= self.most:
            self.closed[REFUSED] += 1
            return False
        self._open[connection] = peer
        self._peers[peer] = self._peers.get(peer, 0) + 1
        return True

    def gone(self, connection: Connection) -> None:
        """Remove a connection. May be called repeatedly, and for a connection that was not accepted."""
        peer = self._open.pop(connection, None)
        if peer is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def _close_idle(self, peer: str | None) -> None:
        """Close the connections that have been idle for longest: of one peer, or of all peers if `peer` is None."""
        idle = []
        for connection, whose in self._open.items():
            since = connection.idle_since() if peer is None or whose == peer else None
            if since is not None:
                idle.append((since, connection))
        idle.sort(key=lambda one: one[0])
        for _, connection in idle[: len(idle) // AT_ONCE + 1]:
            self.closed[IDLE] += 1
            self.gone(connection)
            connection.force_close()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of file descriptors of this process to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            extra = {"event": "descriptor_limit_not_raised", "limit": soft, "error": str(error)}
            _log.warning("the file descriptor limit cannot be raised", extra=extra)


def connections_for(wanted: int, database_connections: int) -> int:
    """Return the maximum number of client connections of a worker: `wanted`, or fewer if descriptors are lacking."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    room = max(CONNECTIONS_MIN, soft - DESCRIPTORS_KEPT - database_connections)
    if room < wanted:
        extra = {"event": "connections_limited", "descriptors": soft, "connections": room}
        _log.warning("the file descriptor limit allows fewer connections than the settings", extra=extra)
    return min(wanted, room)
