"""Metrics of all worker processes, collected and summed by the supervisor, which outlives them.

When the process of a worker ends, its counters are lost, and the next process starts at zero. So the supervisor keeps
the last snapshot of the ended process, and adds it to the snapshots of later processes: no counter decreases. Counts
after the last snapshot are lost. All workers are polled once a second. They are also polled for each page, at most ten
times a second, so that a page contains everything that was counted before the page was requested.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec

from fundledger.app.account.exposition import render
from fundledger.app.account.metrics import Snapshot
from fundledger.app.host.processes.group import REASONS
from fundledger.app.http.admission.hot_keys import KINDS, SHOWN, WINDOW_S, Window
from fundledger.app.http.metrics.exposition import replacements
from fundledger.app.http.metrics.hot_keys import HotKey, HotKeyKinds, HotKeys
from fundledger.app.http.sockets import HOT_KEYS, METRICS, framed, supervisor_socket, worker_socket

EVERY_S: Final = 1.0
WORKER_S: Final = 0.5
"""Time limit in seconds for a worker's answer. If the answer is late, the last snapshot of the worker is used."""
PAUSE_S: Final = 0.1
"""Minimum interval in seconds between two polls of the workers, however many pages are requested."""
ASKER_S: Final = 5.0
_log = logging.getLogger(__name__)


class WorkerSnapshot(Protocol):
    """Snapshot of a worker, a struct. `worker` is unique to one process; `add` does not change its argument."""

    worker: str

    def add(self, other: Self, /) -> None: ...

    def forget_gauges(self) -> None: ...


T = TypeVar("T", bound=WorkerSnapshot)


class Source(NamedTuple, Generic[T]):
    """The metrics source of one service.

    `nothing()` returns the snapshot of no workers. `socket(run_dir, ordinal)` is the socket of a worker,
    `answers_at(run_dir)` is the socket of the supervisor. `answers` maps a request line to the function that renders
    the requested page.
    """

    nothing: Callable[[], T]
    socket: Callable[[Path, int], Path]
    answers_at: Callable[[Path], Path]
    answers: Mapping[bytes, Callable[[T], bytes]]


def nothing() -> Snapshot:
    """Return the snapshot of no workers."""
    return Snapshot(workers=0)


def hot_keys(snapshot: Snapshot) -> bytes:
    """Return the most frequent keys of each kind, as JSON."""
    kinds = {
        kind: [
            HotKey(key, rate, round(share, 6)) for key, rate, share in snapshot.hot_keys.get(kind, Window()).top(SHOWN)
        ]
        for kind in KINDS
    }
    return msgspec.json.encode(HotKeys(HotKeyKinds(**kinds), WINDOW_S))


ACCOUNT: Final = Source[Snapshot](nothing, worker_socket, supervisor_socket, {METRICS: render, HOT_KEYS: hot_keys})


class _Worker(Generic[T]):
    """One worker ordinal: its first process, and each process that replaces it after a restart.

    `before`: sum over the ended processes. `last`: last snapshot of the current process. `life`: number of ended
    processes. `answers`: whether the last poll was answered.
    """

    def __init__(self, nothing: T) -> None:
        self.before = nothing
        self.last: T | None = None
        self.life = 0
        self.answers = False


class Totals(Generic[T]):
    """The sum over all workers, including replaced processes. `nothing()` returns the sum over no workers."""

    def __init__(self, workers: int, nothing: Callable[[], T]) -> None:
        self._nothing = nothing
        self._workers = [_Worker(nothing()) for _ in range(workers)]

    def life(self, ordinal: int) -> int:
        """Return the number of a worker's current process. `update` ignores snapshots with another number."""
        return self._workers[ordinal].life

    def update(self, ordinal: int, life: int, snapshot: T | None) -> None:
        """Record the answer of a worker, None if it did not answer."""
        worker = self._workers[ordinal]
        if life != worker.life:
            return
        worker.answers = snapshot is not None
        if snapshot is not None:
            if worker.last is not None and worker.last.worker != snapshot.worker:
                self._keep(worker)
            worker.last = snapshot

    def ended(self, ordinal: int) -> None:
        """Record that a worker has ended: keep its counters, drop its gauges."""
        worker = self._workers[ordinal]
        worker.life += 1
        worker.answers = False
        self._keep(worker)

    def _keep(self, worker: _Worker[T]) -> None:
        if worker.last is not None:
            worker.last.forget_gauges()
            worker.before.add(worker.last)
            worker.last = None

    def sum(self) -> T:
        """Return the sum over all workers.

        The processes of one worker are added first, so that a restart does not change the order of floating-point
        additions.
        """
        whole = self._nothing()
        for worker in self._workers:
            mine = _copy(worker.before)
            if worker.last is not None:
                last = _copy(worker.last)
                if not worker.answers:
                    last.forget_gauges()
                mine.add(last)
            whole.add(mine)
        return whole


def _copy(snapshot: T) -> T:
    return msgspec.json.decode(msgspec.json.encode(snapshot), type=type(snapshot))


class Scraper(Generic[T]):
    """The supervisor's poller of the workers. From `open` to `close` it serves their sum on a socket in `run_dir`."""

    def __init__(self, run_dir: Path, workers: int, source: Source[T], processes: Sequence[str] = ()) -> None:
        """Create a scraper. `processes`: the kinds of processes whose replacements are counted."""
        self._replaced = {f"{process} {reason}": 0 for process in processes for reason in REASONS}
        self._run_dir = run_dir
        self._workers = workers
        self._source = source
        self._kind = type(source.nothing())
        self._totals = Totals(workers, source.nothing)
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._answered_at = -PAUSE_S
        self._answers: dict[bytes, bytes] = {}
        self._polling: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Open the socket and start polling. Raises OSError."""
        path = self._source.answers_at(self._run_dir)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer_one, str(path))
        self._polling = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in (self._polling, self._next, self._running):
            if task is not None:
                task.cancel()

    def ended(self, ordinal: int) -> None:
        """Record that the process of a worker has ended."""
        self._totals.ended(ordinal)
        self._answers.clear()

    def replaced(self, process: str, reason: str) -> None:
        """Count the replacement of a process for one of REASONS. A process cannot count its own replacement."""
        self._replaced[f"{process} {reason}"] += 1
        self._answers.clear()

    async def answer(self, asked: bytes) -> bytes:
        """Return the current page for a request line, which is a key of the source's `answers`."""
        made = self._source.answers[asked]
        await self._fresh()
        if asked not in self._answers:
            counted = replacements(self._replaced) if asked == METRICS and self._replaced else b""
            self._answers[asked] = made(self._totals.sum()) + counted
        return self._answers[asked]

    async def _poll(self) -> None:
        while True:
            try:
                await self._fresh()
            except Exception:
                _log.exception("cannot poll the workers", extra={"event": "scrape_failed"})
            await asyncio.sleep(EVERY_S)

    async def _fresh(self) -> None:
        """Wait for a poll that starts after this call. At most one poll is in flight.

        Calls that are made during a poll share the next poll.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._ask_all(self._running))
        await asyncio.shield(self._next)

    async def _ask_all(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        loop = asyncio.get_running_loop()
        # Requests that arrive during the pause share this poll.
        await asyncio.sleep(self._answered_at + PAUSE_S - loop.time())
        self._running, self._next = self._next, None
        await asyncio.gather(*(self._ask(ordinal) for ordinal in range(self._workers)))
        self._answered_at = loop.time()
        self._answers.clear()

    async def _ask(self, ordinal: int) -> None:
        life = self._totals.life(ordinal)
        snapshot = None
        try:
            async with asyncio.timeout(WORKER_S):
                reader, writer = await asyncio.open_unix_connection(str(self._source.socket(self._run_dir, ordinal)))
                try:
                    snapshot = msgspec.json.decode(await reader.read(), type=self._kind)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            pass
        except msgspec.DecodeError as error:
            _log.warning(
                "incomplete snapshot from worker: %s", error, extra={"event": "snapshot_incomplete", "worker": ordinal}
            )
        self._totals.update(ordinal, life, snapshot)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKER_S):
                asked = await reader.readline()
                writer.write(framed(await self.answer(asked)))
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        except Exception:
            _log.exception("cannot answer a metrics request", extra={"event": "metrics_failed"})
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()
