"""Draining of an HTTP worker's connections at its stop: requests are finished, not connections.

1. The port is left to other workers: the queue of the listening socket is accepted, then the socket is closed.
2. Each answer from then on has `Connection: close`, and the connection ends after it.
3. A connection that has been silent for SILENT_S is closed. A request that its client sends at that moment is lost,
   which HTTP/1.1 cannot prevent. The longer a connection has been silent, the less probable is that.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from aiohttp.web_server import Server

SILENT_S: Final = 2.0
LOOK_EVERY_S: Final = 0.02


class Drains(Protocol):
    """The members of a worker that draining uses."""

    draining: bool

    async def drain(self) -> None:
        """Wait until all accepted requests are answered."""


async def finish_connections(
    service: Drains,
    server: asyncio.Server,
    listener: socket.socket,
    manager: Server,
    protocol: Callable[[], asyncio.Protocol],
) -> None:
    """Stop accepting connections, answer the requests that still arrive on open connections, and close these.

    Returns when all connections are closed and all accepted requests are answered. Cancelling leaves the rest open.
    """
    loop = asyncio.get_running_loop()
    service.draining = True
    waiting = list(_accepted(listener))
    server.close()
    for one in waiting:
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(protocol, one)
    since = loop.time()
    await service.drain()
    while _close_silent(manager.connections, since):  # noqa: ASYNC110 - silence causes no event
        await asyncio.sleep(LOOK_EVERY_S)
    await service.drain()
    await manager.shutdown(5)
    await service.drain()


def _accepted(listener: socket.socket) -> Iterable[socket.socket]:
    """Yield the connections in the queue of the listening socket: closing the socket would reset them."""
    while True:
        try:
            one, _ = listener.accept()
        except OSError:
            return
        one.setblocking(False)
        yield one


def _close_silent(connections: "list[Any]", since: float) -> int:
    """Close silent connections. Return how many remain open."""
    return sum(not one.close_if_silent(since, SILENT_S) for one in connections)
