"""Processes of one `fundledger serve` in a chaos test: functions that start it, find its processes and kill them."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

START_S: Final = 90.0
STOP_S: Final = 90.0
GONE_S: Final = 90.0
KINDS: Final = ("worker", "supervisor", "postgres", "backend", "valkey")


class ServeFault(Exception):
    """`fundledger serve` violated a requirement of the test, so it has a defect."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, identified by pid and start time, because the kernel may give the pid of an ended process to another
    process.
    """

    pid: int
    started: str

    def alive(self) -> bool:
        return _started(self.pid) == self.started


def process(pid: int) -> Process | None:
    started = _started(pid)
    return None if started is None else Process(pid, started)


def children(pid: int) -> list[Process]:
    """Return the running direct children of a process, in the order in which the kernel lists them."""
    pids: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass
    return [child for child in map(process, pids) if child is not None]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return the start time of a process in ticks since boot; None if the process has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Serve:
    """`fundledger serve` with its own data directory and port, restarted as often as needed."""

    def __init__(self, home: Path, port: int, workers: int, environment: Mapping[str, str]) -> None:
        self.data_dir = home / "data"
        self.log = home / "serve.log"
        self.url = f"http://127.0.0.1:{port}"
        self.workers_wanted = workers
        self.failed_starts: list[str] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FUNDLEDGER_")},
            "FUNDLEDGER_POSTGRES_MEMORY_MB": "256",
            "FUNDLEDGER_FUND": "off",
            **environment,
            "FUNDLEDGER_DATA_DIR": str(self.data_dir),
            "FUNDLEDGER_PORT": str(port),
            "FUNDLEDGER_WORKERS": str(workers),
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def token(self) -> str:
        return (self.data_dir / "dev-token").read_text().strip()

    async def start(self) -> None:
        """Start `serve` and wait until it is ready. If `serve` exits, start it again, as a process manager does.

        Raises ServeFault.
        """
        give_up_at = time.monotonic() + START_S
        while True:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    str(program()),
                    "serve",
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    cwd=self.data_dir.parent,
                    start_new_session=True,
                )
            if await self._ready(give_up_at):
                return
            if self._process.returncode is None or time.monotonic() > give_up_at:
                raise ServeFault(f"serve is not ready after {START_S:.0f} s: see {self.log}")
            self.failed_starts.append(f"exit {self._process.returncode}")
            await asyncio.sleep(0.5)

    async def _ready(self, give_up_at: float) -> bool:
        assert self._process is not None
        while self._process.returncode is None and time.monotonic() < give_up_at:
            if await self.is_ready() and len(self.workers()) == self.workers_wanted:
                return True
            await asyncio.sleep(0.05)
        return False

    async def is_ready(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url}/readyz") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def workers(self) -> list[Process]:
        return [child for child in self._children() if "fundledger.app.account.server" in command_line(child.pid)]

    def postmaster(self) -> Process | None:
        found = [child for child in self._children() if "/postgres -D" in command_line(child.pid)]
        return found[0] if found else None

    def valkey(self) -> Process | None:
        found = [child for child in self._children() if "valkey-server" in command_line(child.pid)]
        return found[0] if found else None

    def backends(self) -> list[Process]:
        """Return the Postgres processes that serve a connection."""
        postmaster = self.postmaster()
        found = [] if postmaster is None else children(postmaster.pid)
        return [child for child in found if "[local]" in command_line(child.pid)]

    def _children(self) -> list[Process]:
        return [] if self._process is None else children(self._process.pid)

    def target(self, kind: str, chance: random.Random) -> Process | None:
        """Return a random process of a kind, None if there is no process of this kind."""
        if kind == "supervisor":
            return process(self._process.pid) if self._process is not None else None
        if kind == "postgres":
            return self.postmaster()
        if kind == "valkey":
            return self.valkey()
        found = self.workers() if kind == "worker" else self.backends()
        return chance.choice(found) if found else None

    def family(self) -> list[Process]:
        """Return the processes of this `serve` that may still run after the end of their parent."""
        return [*self._children(), *self.backends()]

    async def wait_killed(self) -> None:
        """Wait for the end of the supervisor, to which the caller has sent SIGKILL."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> int:
        """Send SIGTERM and return the exit status. Raises ServeFault."""
        assert self._process is not None
        family = self.family()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            raise ServeFault(f"serve has not stopped {STOP_S:.0f} s after SIGTERM") from None
        await gone(family)
        return code

    def kill_all(self) -> None:
        """Kill all processes of this `serve` that still run."""
        family = self.family()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        for left in family:
            if left.alive():
                os.kill(left.pid, signal.SIGKILL)

    async def verify(self) -> dict[str, Any]:
        """Return the report of `fundledger verify --json`."""
        verifying = await asyncio.create_subprocess_exec(
            str(program()),
            "verify",
            "--json",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self.data_dir.parent,
        )
        out, error = await verifying.communicate()
        try:
            found: dict[str, Any] = msgspec.json.decode(out)
        except msgspec.DecodeError:
            return {"ok": False, "failed": (error or out).decode(errors="replace")[-500:]}
        return {**found, "exit": verifying.returncode}

    def critical_lines(self) -> list[str]:
        """Return the service's log lines of level critical."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [line[:2000] for line in text.splitlines() if '"level": "critical"' in line]


def program() -> Path:
    """Return the path of the command `fundledger` beside this interpreter."""
    return Path(sys.executable).with_name("fundledger")


async def until(condition: Callable[[], bool]) -> None:
    """Poll a condition until it holds. Polling is necessary because other processes send no notification."""
    while not condition():  # noqa: ASYNC110 - no event to wait for
        await asyncio.sleep(0.02)


async def gone(family: list[Process]) -> None:
    """Wait until all given processes have ended. Raises ServeFault if they do not end in time."""
    try:
        async with asyncio.timeout(GONE_S):
            await until(lambda: not any(member.alive() for member in family))
    except TimeoutError:
        names = ", ".join(f"{member.pid} {command_line(member.pid)}" for member in family if member.alive())
        raise ServeFault(f"still running after {GONE_S:.0f} s: {names}") from None
