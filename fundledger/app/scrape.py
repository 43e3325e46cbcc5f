"""What all workers have counted, in one page: asked for by the supervisor, which outlives them.

A worker that dies takes its counters with it, and its successor begins at nothing. So what a worker told last is kept
when it is gone, and the page shows that and what its successors tell: no counter goes back, whoever dies. What a worker
counted after it told last is lost. Every second all are asked, and again for each page, but ten times a second at
most: a page has everything that was counted before it was asked for.
"""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Final

import msgspec

from fundledger.app.exposition import render
from fundledger.app.hotkeys import KINDS, SHOWN, WINDOW_S, Window
from fundledger.app.metrics import Snapshot
from fundledger.app.sockets import HOT_KEYS, METRICS, framed, supervisor_socket, worker_socket

EVERY_S: Final = 1.0
WORKER_S: Final = 0.5
"""How long a worker may take to answer; meanwhile it is shown with what it told last."""
PAUSE_S: Final = 0.1
"""From one answer of the workers to the next question, however many pages are asked for."""
ASKER_S: Final = 5.0
_log = logging.getLogger(__name__)


class _Worker:
    """All that ever ran as one ordinal: `before` is the sum of those that are gone, `last` what this one told last.
    `life` counts them; `answers`: whether it did when it was asked last.
    """

    def __init__(self) -> None:
        self.before = Snapshot(workers=0)
        self.last: Snapshot | None = None
        self.life = 0
        self.answers = False


class Totals:
    """The sum over `workers`, which counts on when one of them is replaced."""

    def __init__(self, workers: int) -> None:
        self._workers = [_Worker() for _ in range(workers)]

    def life(self, ordinal: int) -> int:
        """Which life of a worker is asked: what is heard of it when it has ended is not counted again."""
        return self._workers[ordinal].life

    def told(self, ordinal: int, life: int, snapshot: Snapshot | None) -> None:
        """What a worker answered, None when it did not."""
        worker = self._workers[ordinal]
        if life != worker.life:
            return
        worker.answers = snapshot is not None
        if snapshot is not None:
            if worker.last is not None and worker.last.worker != snapshot.worker:
                self._keep(worker)
            worker.last = snapshot

    def ended(self, ordinal: int) -> None:
        """A worker is gone: its counters are kept, its gauges are not."""
        worker = self._workers[ordinal]
        worker.life += 1
        worker.answers = False
        self._keep(worker)

    def _keep(self, worker: _Worker) -> None:
        if worker.last is not None:
            worker.last.forget_gauges()
            worker.before.add(worker.last)
            worker.last = None

    def sum(self) -> Snapshot:
        """Each ordinal by itself first: so the very same floating-point numbers are added before and after a death."""
        whole = Snapshot(workers=0)
        for worker in self._workers:
            mine = _copy(worker.before)
            if worker.last is not None:
                last = _copy(worker.last)
                if not worker.answers:
                    last.forget_gauges()
                mine.add(last)
            whole.add(mine)
        return whole


def _copy(snapshot: Snapshot) -> Snapshot:
    return msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)


class Scraper:
    """Asks the workers in `run_dir`, and answers there. From `open` to `close`; both are for the supervisor."""

    def __init__(self, run_dir: Path, workers: int) -> None:
        self._run_dir = run_dir
        self._workers = workers
        self._totals = Totals(workers)
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._answered_at = -PAUSE_S
        self._page: bytes | None = None
        self._polling: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Raises OSError."""
        path = supervisor_socket(self._run_dir)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, str(path))
        self._polling = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in (self._polling, self._next, self._running):
            if task is not None:
                task.cancel()

    def ended(self, ordinal: int) -> None:
        """The process of a worker has ended."""
        self._totals.ended(ordinal)
        self._page = None

    async def page(self) -> bytes:
        """The metrics now."""
        await self._fresh()
        if self._page is None:
            self._page = render(self._totals.sum())
        return self._page

    async def hot_keys(self) -> bytes:
        """Who asks most, as JSON."""
        await self._fresh()
        seen = self._totals.sum().hot_keys
        kinds = {
            kind: [
                {"id": key, "rate": rate, "share": round(share, 6)}
                for key, rate, share in seen.get(kind, Window()).top(SHOWN)
            ]
            for kind in KINDS
        }
        return msgspec.json.encode({"kinds": kinds, "window_s": WINDOW_S})

    async def _poll(self) -> None:
        while True:
            try:
                await self._fresh()
            except Exception:
                _log.exception("the workers could not be asked")
            await asyncio.sleep(EVERY_S)

    async def _fresh(self) -> None:
        """Ask all workers, from now on. Who comes while they are being asked waits for the next time, with all others
        that come meanwhile: however many pages are asked for, one question is out.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._ask_all(self._running))
        await asyncio.shield(self._next)

    async def _ask_all(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        loop = asyncio.get_running_loop()
        # Who asks for a page during the pause gets it with all others, and with all that was counted until then.
        await asyncio.sleep(self._answered_at + PAUSE_S - loop.time())
        self._running, self._next = self._next, None
        await asyncio.gather(*(self._ask(ordinal) for ordinal in range(self._workers)))
        self._answered_at = loop.time()
        self._page = None

    async def _ask(self, ordinal: int) -> None:
        life = self._totals.life(ordinal)
        snapshot = None
        try:
            async with asyncio.timeout(WORKER_S):
                reader, writer = await asyncio.open_unix_connection(str(worker_socket(self._run_dir, ordinal)))
                try:
                    snapshot = msgspec.json.decode(await reader.read(), type=Snapshot)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            pass
        except msgspec.DecodeError as error:
            _log.warning("a worker told half of what it counted: %s", error, extra={"worker": ordinal})
        self._totals.told(ordinal, life, snapshot)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKER_S):
                asked = await reader.readline()
                answers = {METRICS: self.page, HOT_KEYS: self.hot_keys}
                writer.write(framed(await answers[asked]()))
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        except Exception:
            _log.exception("the metrics could not be shown")
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()
