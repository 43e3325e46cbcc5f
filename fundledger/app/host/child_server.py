"""Base class of the servers that the host embeds (Postgres, Valkey): launch, readiness, end and log file."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fundledger.app.host.log_file import LogFile
from fundledger.app.host.processes.children import end_with_parent, environment


class ChildServer:
    """A server process that appends its output to a log file and ends with its parent. It can be launched again."""

    def __init__(self, log: Path) -> None:
        self.log = LogFile(log)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def status(self) -> int | None:
        """Return the exit status of the server, None if it runs or was never launched."""
        return None if self._process is None else self._process.returncode

    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def wait(self) -> int:
        """Wait until the server has ended, for any reason. Return its exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def _spawn(self, *command: str | Path, parent_gone: signal.Signals, **options: Any) -> None:
        """Launch the server. When this process ends, the kernel sends `parent_gone` to the server. Raises OSError.

        `options`: further arguments of `create_subprocess_exec`.
        """
        with self.log.open() as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment(),
                preexec_fn=end_with_parent(parent_gone),
                **options,
            )

    async def _until_ready(
        self, is_ready: Callable[[asyncio.Timeout], Awaitable[bool]], give_up_at: float, every_s: float
    ) -> bool:
        """Wait until the server is ready and return True. Return False if it ends first, or at `give_up_at`.

        `give_up_at` is a time of the event loop. `is_ready` is called every `every_s` seconds. `is_ready` gets the
        timeout, and may postpone it. At `give_up_at` a running call is cancelled.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(give_up_at) as limit:
                while self.is_running():
                    if await is_ready(limit):
                        return True
                    await asyncio.sleep(every_s)
        return False

    async def _end(
        self, first: signal.Signals, within_s: float | None = None, last: signal.Signals = signal.SIGKILL
    ) -> None:
        """Send `first` and wait for the end of the server. If it still runs after `within_s` seconds, send `last`."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(first)
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            self._process.send_signal(last)
            await self._process.wait()


async def output_of(*command: str | Path, **options: Any) -> tuple[int, str]:
    """Run a command. Return its exit status and its output, including standard error. Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=environment(),
        **options,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace").strip()
