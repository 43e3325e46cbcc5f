"""What all workers have counted, in one page: asked for by the supervisor, which outlives them.

A worker that dies takes its counters with it, and its successor begins at nothing. So what a worker told last is kept
when it is gone, and the page shows that and what its successors tell: no counter goes back, whoever dies. What a worker
counted after it told last is lost. Every second all are asked, and again for each page, but ten times a second at
most: a page has everything that was counted before it was asked for.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec

from fundledger.app.crew import REASONS
from fundledger.app.exposition import render, replacements
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


class Told(Protocol):
    """What a worker tells, a struct. `worker` is no other one's, ever; `add` does not change what it is given."""

    worker: str

    def add(self, other: Self, /) -> None: ...

    def forget_gauges(self) -> None: ...


T = TypeVar("T", bound=Told)


class Source(NamedTuple, Generic[T]):
    """Who is asked, and what is answered: one for each service.

    `nothing()` is what no worker at all would tell. `socket(run_dir, ordinal)` is where a worker tells,
    `answers_at(run_dir)` where the supervisor is asked, `answers` what for, each by the line that is sent.
    """

    nothing: Callable[[], T]
    socket: Callable[[Path, int], Path]
    answers_at: Callable[[Path], Path]
    answers: Mapping[bytes, Callable[[T], bytes]]


def nothing() -> Snapshot:
    """What no worker at all has counted."""
    return Snapshot(workers=0)


def hot_keys(snapshot: Snapshot) -> bytes:
    """Who asks most, as JSON."""
    kinds = {
        kind: [
            {"id": key, "rate": rate, "share": round(share, 6)}
            for key, rate, share in snapshot.hot_keys.get(kind, Window()).top(SHOWN)
        ]
        for kind in KINDS
    }
    return msgspec.json.encode({"kinds": kinds, "window_s": WINDOW_S})


ACCOUNT: Final = Source[Snapshot](nothing, worker_socket, supervisor_socket, {METRICS: render, HOT_KEYS: hot_keys})


class _Worker(Generic[T]):
    """All that ever ran as one ordinal: `before` is the sum of those that are gone, `last` what this one told last.
    `life` counts them; `answers`: whether it did when it was asked last.
    """

    def __init__(self, nothing: T) -> None:
        self.before = nothing
        self.last: T | None = None
        self.life = 0
        self.answers = False


class Totals(Generic[T]):
    """The sum over `workers`, which counts on when one of them is replaced. `nothing()` is where it begins."""

    def __init__(self, workers: int, nothing: Callable[[], T]) -> None:
        self._nothing = nothing
        self._workers = [_Worker(nothing()) for _ in range(workers)]

    def life(self, ordinal: int) -> int:
        """Which life of a worker is asked: what is heard of it when it has ended is not counted again."""
        return self._workers[ordinal].life

    def told(self, ordinal: int, life: int, snapshot: T | None) -> None:
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

    def _keep(self, worker: _Worker[T]) -> None:
        if worker.last is not None:
            worker.last.forget_gauges()
            worker.before.add(worker.last)
            worker.last = None

    def sum(self) -> T:
        """Each ordinal by itself first: so the very same floating-point numbers are added before and after a death."""
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
    """Asks the workers in `run_dir`, and answers there. From `open` to `close`; both are for the supervisor."""

    def __init__(self, run_dir: Path, workers: int, source: Source[T], processes: Sequence[str] = ()) -> None:
        """`processes`: the kinds of processes whose replacements are counted here."""
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
        """Raises OSError."""
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
        """The process of a worker has ended."""
        self._totals.ended(ordinal)
        self._answers.clear()

    def replaced(self, process: str, reason: str) -> None:
        """A process was replaced, for one of REASONS. It cannot count that: the supervisor does."""
        self._replaced[f"{process} {reason}"] += 1
        self._answers.clear()

    async def answer(self, asked: bytes) -> bytes:
        """What is asked for, one of the source's answers, as it is now."""
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
            _log.warning("a worker told half of what it counted: %s", error, extra={"worker": ordinal})
        self._totals.told(ordinal, life, snapshot)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKER_S):
                asked = await reader.readline()
                writer.write(framed(await self.answer(asked)))
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        except Exception:
            _log.exception("the metrics could not be shown")
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()
