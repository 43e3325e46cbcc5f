"""Process group of the supervisor: restarts each process that dies, with backoff if it dies soon after its start.

A process that has served and then does not answer on its socket for `unresponsive_s` is killed and restarted. Otherwise
the kernel would still give the hung process its share of the new connections of the port.
"""

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fundledger.app.host.processes.children import end_with_parent, environment

YOUNG_S: Final = 5.0
PAUSE_S_MAX: Final = 5.0
LOOK_EVERY_S: Final = 0.05
KILLED_S: Final = 5.0
WATCH_EVERY_S: Final = 1.0
LAST_TRY_S: Final = 2.0
"""Time in seconds, at the end of `unresponsive_s`, for a second probe. The first probe may have failed because the
supervisor itself was late.
"""
DIED: Final = "died"
UNRESPONSIVE: Final = "unresponsive"
REASONS: Final = (DIED, UNRESPONSIVE)
_log = logging.getLogger(__name__)

Place = Path | tuple[str, int]
"""Address on which a process accepts connections: a unix socket, or host and port."""


def nobody(ordinal: int) -> None:
    """Ignore the end of a process."""
    del ordinal


def uncounted(ordinal: int, reason: str) -> None:
    """Ignore the replacement of a process."""
    del ordinal, reason


class ProcessSpec(NamedTuple):
    """Specification of the processes of a group. `name` is used in the log.

    The result of `line(ordinal)` is written to the standard input of a process. The input stays open while the
    supervisor lives, so the end of the input means that the supervisor has ended. Without `line`, the kernel sends
    SIGTERM to the process when the supervisor has ended. `ended(ordinal)` is called when a process has ended, before it
    is restarted. `arguments` are visible to all users of the machine.

    `unresponsive_s`: time in seconds after which a process that has served is killed if it answers no connection to its
    unix socket. None: processes are not probed. `replaced(ordinal, reason)` is called when a process has ended although
    the group was not stopped.
    """

    name: str
    module: str
    place: Callable[[int], Place]
    line: Callable[[int], bytes] | None = None
    arguments: Sequence[str] = ()
    ended: Callable[[int], None] = nobody
    unresponsive_s: float | None = None
    replaced: Callable[[int, str], None] = uncounted


class ProcessGroup:
    """A group of `size` processes, numbered from 0, that run from `start` to `stop`. No failure of one raises."""

    def __init__(self, spec: ProcessSpec, size: int) -> None:
        self._spec = spec
        self._size = size
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._serves = [asyncio.Event() for _ in range(size)]
        self._died_young = [0] * size
        self._unresponsive: set[int] = set()
        self._given_up = asyncio.Event()
        self._tries: int | None = None
        self._stopping = asyncio.Event()
        self._restarters: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return self._size

    def start(self) -> None:
        self._restarters = [asyncio.create_task(self._keep(ordinal)) for ordinal in range(self._size)]

    async def serves(self, within_s: float, tries: int | None = None) -> bool:
        """Wait until each process has served once, then return True.

        Return False after `within_s`, or when one process died early `tries` times in a row. Dead processes
        are restarted even after False was returned. May be cancelled.
        """
        self._tries = tries
        self._given_up.clear()
        self._look_at_tries()
        served = asyncio.gather(*(event.wait() for event in self._serves))
        hopeless = asyncio.ensure_future(self._given_up.wait())
        waiting: list[asyncio.Future[Any]] = [served, hopeless]
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        well = served.done()
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return well

    async def stop(self, within_s: float) -> None:
        """Send SIGTERM to all processes; kill the rest after `within_s`. May be called again, and before `start`."""
        self._stopping.set()
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        if not self._restarters:
            return
        _, late = await asyncio.wait(self._restarters, timeout=within_s)
        if late:
            _log.error("a %s did not end in time and is killed", self._spec.name, extra={"event": "worker_killed"})
            for process in self._processes.values():
                _signal(process, signal.SIGKILL)
            await asyncio.wait(late, timeout=KILLED_S)
        for restarter in self._restarters:
            restarter.cancel()
        await asyncio.gather(*self._restarters, return_exceptions=True)

    async def _keep(self, ordinal: int) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._stopping.is_set():
            started = loop.time()
            try:
                code: int | str = await self._run(ordinal)
            except OSError as error:
                code = str(error)
            if self._stopping.is_set():
                return
            if ordinal in self._unresponsive:
                self._unresponsive.discard(ordinal)
                self._spec.replaced(ordinal, UNRESPONSIVE)
            else:
                extra = {"event": "worker_died", "worker": ordinal, "code": code}
                _log.error("a %s died and is restarted", self._spec.name, extra=extra)
                self._spec.replaced(ordinal, DIED)
            if loop.time() - started > YOUNG_S:
                pause, self._died_young[ordinal] = 0.0, 0
            else:
                pause = min(PAUSE_S_MAX, pause * 2 + 0.2)
                self._died_young[ordinal] += 1
                self._look_at_tries()
            await self._pause(pause)

    async def _run(self, ordinal: int) -> int:
        """Run one process until it ends. Raises OSError if it cannot be started."""
        spec = self._spec
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            spec.module,
            *spec.arguments,
            stdin=subprocess.PIPE if spec.line else subprocess.DEVNULL,
            start_new_session=True,
            env=environment(),
            preexec_fn=None if spec.line else end_with_parent(signal.SIGTERM),
        )
        self._processes[ordinal] = process
        if self._stopping.is_set():
            _signal(process, signal.SIGTERM)
        if spec.line is not None:
            assert process.stdin is not None
            process.stdin.write(spec.line(ordinal) + b"\n")
        watch = asyncio.create_task(self._watch(ordinal, process))
        try:
            return await process.wait()
        finally:
            watch.cancel()
            spec.ended(ordinal)

    async def _until_it_serves(self, ordinal: int) -> None:
        place = self._spec.place(ordinal)
        while True:
            try:
                if isinstance(place, Path):
                    _, writer = await asyncio.open_unix_connection(str(place))
                else:
                    _, writer = await asyncio.open_connection(*place)
            except OSError:
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                writer.close()
                self._serves[ordinal].set()
                return

    async def _watch(self, ordinal: int, process: asyncio.subprocess.Process) -> None:
        """Kill a process that has served but no longer answers, unless the group is being stopped."""
        await self._until_it_serves(ordinal)
        place, within_s = self._spec.place(ordinal), self._spec.unresponsive_s
        if within_s is None or not isinstance(place, Path):
            return
        last_s = min(LAST_TRY_S, within_s / 5)
        while True:
            await self._pause(WATCH_EVERY_S)
            answers = await _answers(place, within_s - last_s) or await _answers(place, last_s)
            if self._stopping.is_set():
                return
            if not answers:
                extra = {"event": "worker_unresponsive", "worker": ordinal, "pid": process.pid, "seconds": within_s}
                _log.error("a %s does not answer and is replaced", self._spec.name, extra=extra)
                self._unresponsive.add(ordinal)
                _signal(process, signal.SIGKILL)
                return

    def _look_at_tries(self) -> None:
        if self._tries is not None and max(self._died_young, default=0) >= self._tries:
            self._given_up.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


async def _answers(place: Path, within_s: float) -> bool:
    """Return whether a process closes a connection to its socket in time, with or without an answer.

    Also True if no process listens on the socket: the process is ending.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(str(place))
                except (ConnectionRefusedError, FileNotFoundError):
                    return True
                except OSError:  # the backlog of the socket is full
                    await asyncio.sleep(LOOK_EVERY_S)
                    continue
                try:
                    with contextlib.suppress(ConnectionError):
                        await reader.read()
                finally:
                    writer.close()
                return True
    return False


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
