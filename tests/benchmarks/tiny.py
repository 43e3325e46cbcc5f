"""A tiny server in a thread; a test supplies its responses."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.web_request import BaseRequest

Handler = Callable[[BaseRequest, int], Awaitable[web.StreamResponse]]


class TinyServer:
    """An HTTP server. `handler(request, n)` answers the n-th request; n begins at 1.

    `bodies` are the received bodies, in the same order. `backlog`: the number of connections that may wait for accept.
    """

    def __init__(self, handler: Handler, backlog: int = 1024) -> None:
        self._handler = handler
        self._backlog = backlog
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._listening = threading.Event()
        self._ending = asyncio.Event()
        self.bodies: list[bytes] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        self.bodies.append(body)
        return await self._handler(request, len(self.bodies))

    async def _serve(self) -> None:
        manager = web.Server(self._handle)
        server = await self._loop.create_server(manager, "127.0.0.1", 0, backlog=self._backlog)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._ending.wait()
        server.close()
        await manager.shutdown(1)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
