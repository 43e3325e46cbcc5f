"""TCP proxy for network-cut tests. A test can make the proxy reset and refuse connections, or let connections hang."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Literal, Self

from benchmarks.wire import HOST

CHUNK: Final = 1 << 16
NO_LINGER: Final = struct.pack("ii", 1, 0)
Form = Literal["reset", "swallow"]


class Link:
    """Proxy from the local port `port` to the local port `target`. It runs on its own thread.

    `cut("reset")` resets connections and refuses new connections. `cut("swallow")` lets existing and new connections
    hang, as a network that loses all packets does. `heal` restores the link; data that was sent meanwhile then arrives
    late, as after a TCP retransmission.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._flows: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._reset)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self, form: Form) -> None:
        self._do(self._reset if form == "reset" else self._swallow)

    def heal(self) -> None:
        self._do(self._listen)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, what: Callable[[], Awaitable[None]]) -> None:
        async def done() -> None:
            await what()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    async def _listen(self) -> None:
        self._open.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _swallow(self) -> None:
        self._open.clear()

    async def _reset(self) -> None:
        self._open.clear()
        if self._server is not None:
            self._server.close()
            self._server = None
        for flow in self._flows:
            flow.cancel()
        for writer in self._writers:
            # With a linger time of 0, closing a socket sends a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            writer.transport.abort()
        await asyncio.gather(*self._flows, return_exceptions=True)
        # Aborted transports are closed in the next iterations of the loop.
        await asyncio.sleep(0.01)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        flow = asyncio.current_task()
        assert flow is not None
        self._flows.add(flow)
        flow.add_done_callback(self._flows.discard)
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            answers, there = await asyncio.open_connection(HOST, self._target)
            self._writers.add(there)
            await asyncio.gather(self._forward(reader, there), self._forward(answers, writer))
        except (OSError, asyncio.CancelledError):
            # The link was cut, or one side has closed its connection. The connections of both sides are closed below.
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _forward(self, from_: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while piece := await from_.read(CHUNK):
            await self._open.wait()
            to.write(piece)
            await to.drain()
        with contextlib.suppress(OSError):
            to.write_eof()
