"""HTTP wire level: draining of connections when a worker stops. Requests that still arrive are answered.

1. The connections in the queue of the listening socket are accepted, then the socket is closed. From then on, other
   workers get the new connections of the port.
2. Each further answer has `Connection: close`, and the connection ends after the answer.
3. A connection that has been silent for SILENT_S is closed. If its client sends a request at that moment, the request
   is lost. HTTP/1.1 cannot prevent this loss. The longer the connection has been silent, the less probable the loss is.
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
    """Stop accepting connections, answer the requests that still arrive on open connections, and close all connections.

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
    """Accept and yield the queued connections of the listening socket. Closing the socket would reset them."""
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
