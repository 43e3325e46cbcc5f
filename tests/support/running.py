"""A running `fundledger serve` with its own data directory, port and environment."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from fundledger.security.tokens import module_token
from tests.support.waiting import NeverHappened, eventually

COMMAND = Path(sys.executable).with_name("fundledger")
START_S = 90.0
STOP_S = 90.0
MEMORY = "/dev/shm"
MEMORY_BYTES_MIN = 4 << 30
"""Free memory (bytes) that is required for a data directory in memory. The largest service of a test uses less."""

WORKER = "fundledger.app.account.server"
FUND_WORKER = "fundledger.app.fund.server"
JOBS = "fundledger.app.fund.jobs"
SIMULATOR = "fundledger.fund.channels.simulator"
MODULES = (WORKER, FUND_WORKER, JOBS, SIMULATOR)

PORTS = 20000
"""The first port for tests. The ports are below the range that the kernel uses for outgoing connections, so that no
connection takes a port after it was chosen.
"""
PORTS_OF_RUNNER = 1500
_ports = itertools.cycle(range(PORTS_OF_RUNNER))


def free_port() -> int:
    """Return a port that is free and that no other process of this test run chooses."""
    runner = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for at in itertools.islice(_ports, PORTS_OF_RUNNER):
        port = PORTS + runner % 8 * PORTS_OF_RUNNER + at
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports of the tests are taken")


def short_folder() -> Path:
    """Create a folder whose path is short enough for a unix socket, and which the user of Postgres may enter.

    It is in memory if there is enough room: a new database is 300 files, which on a disk take ten times as long as the
    test itself.
    """
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir=_place()))
    folder.chmod(0o711)
    return folder


def _place() -> str:
    with contextlib.suppress(OSError):
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
            return MEMORY
    return "/tmp"


class RunningService:
    """One service on a data directory, or both with `fund`.

    `start` and `stop` may follow each other any number of times on the same data; `remove` ends the service
    permanently. `env` overrides the environment of the service; a value of None removes a variable.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        port: int | None = None,
        data_dir: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        arguments: Sequence[str] = (),
        fund: bool = False,
    ) -> None:
        self.folder = short_folder()
        self.data_dir = data_dir or self.folder / "data"
        self.log = self.folder / "serve.log"
        self.port = port or free_port()
        self.fund_port, self.simulator_port = free_port(), free_port()
        self.arguments = list(arguments)
        self.environment = clean_environment(
            {
                "FUNDLEDGER_DATA_DIR": str(self.data_dir),
                "FUNDLEDGER_PORT": str(self.port),
                "FUNDLEDGER_WORKERS": str(workers),
                "FUNDLEDGER_POSTGRES_MEMORY_MB": "256",
                **(self._with_fund() if fund else {"FUNDLEDGER_FUND": "off"}),
                **(env or {}),
            }
        )
        self.process: subprocess.Popen[bytes] | None = None

    def _with_fund(self) -> dict[str, str]:
        return {
            "FUNDLEDGER_FUND": "on",
            "FUNDLEDGER_FUND_PORT": str(self.fund_port),
            "FUNDLEDGER_SIMULATOR_PORT": str(self.simulator_port),
        }

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.remove()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def fund_url(self) -> str:
        return f"http://127.0.0.1:{self.fund_port}"

    @property
    def simulator_url(self) -> str:
        return f"http://127.0.0.1:{self.simulator_port}"

    @property
    def token(self) -> str:
        return (self.data_dir / "dev-token").read_text().strip()

    @property
    def simulator_token(self) -> str:
        """Return the token of the simulator that this service started."""
        return (self.data_dir / "simulator-token").read_text().strip()

    @property
    def fund_token(self) -> str:
        """Return the access token of the module `fund`.

        If the fund service does not run here, create the token; call this before `start`.
        """
        path = self.data_dir / "fund-token"
        if self.process is None:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            module_token(path, "fund")
        return path.read_text().strip()

    @property
    def dsn(self) -> str:
        return self.environment.get("FUNDLEDGER_ACCOUNT_DSN") or (self.data_dir / "account-dsn").read_text().strip()

    @property
    def fund_dsn(self) -> str:
        return self.environment.get("FUNDLEDGER_FUND_DSN") or (self.data_dir / "fund-dsn").read_text().strip()

    async def start(self, within_s: float = START_S) -> Self:
        """Start the service, and wait until every worker accepts requests."""
        assert not self.is_running()
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve", *self.arguments],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            await eventually(self._is_up_or_dead, "the service starts", within_s)
            if not self.is_running():
                raise NeverHappened(f"the service ended with status {self.process.returncode}")
        except NeverHappened as error:
            self.kill_everything()
            raise NeverHappened(f"{error}\n{self.log_tail()}") from None
        return self

    def _is_up_or_dead(self) -> bool:
        return not self.is_running() or "fundledger: ready" in self.log.read_text(errors="replace")

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def ended(self, within_s: float = STOP_S) -> int:
        """Wait until the supervisor ends without a signal of the test. Return its exit status."""
        process = self.process
        assert process is not None
        await eventually(lambda: process.poll() is not None, "the service ends", within_s)
        assert process.returncode is not None
        return process.returncode

    async def stop(self, within_s: float = STOP_S) -> int:
        """Send SIGTERM, and wait for the end. Return the exit status."""
        process = self.process
        assert process is not None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return await self.ended(within_s)
        except NeverHappened as error:
            self.kill_everything()
            raise NeverHappened(f"{error}\n{self.log_tail()}") from None

    def kill(self) -> None:
        """Send SIGKILL to the supervisor alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def worker_pids(self) -> list[int]:
        """Return the workers of this service, also those of a killed supervisor."""
        return self._pids_of(WORKER)

    def fund_pids(self) -> list[int]:
        """Return the workers of the fund service, also those of a killed supervisor."""
        return self._pids_of(FUND_WORKER)

    def jobs_pids(self) -> list[int]:
        """Return the processes of its background jobs, also those of a killed supervisor."""
        return self._pids_of(JOBS)

    def simulator_pids(self) -> list[int]:
        """Return the simulator's process, at most one, also that of a killed supervisor."""
        return self._pids_of(SIMULATOR)

    def _pids_of(self, *modules: str) -> list[int]:
        return sorted(pid for pid, command in self._processes() if not {*modules}.isdisjoint(command.split(" ")))

    def postgres_pid(self) -> int | None:
        """Return the process of the embedded Postgres, None when it does not run."""
        try:
            pid = int((self.data_dir / "postgres" / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return None
        return pid if Path(f"/proc/{pid}").exists() else None

    def valkey_pid(self) -> int | None:
        """Return the process of the embedded Valkey, None when it does not run."""
        mark = f"{self.data_dir}/run/valkey.sock"
        return next((pid for pid, command in self._processes() if "valkey-server" in command and mark in command), None)

    def kill_everything(self) -> None:
        """Send SIGKILL to all processes, also Valkey: the effect of a power failure without lost disk writes."""
        pids = self._served_by()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid in [*pids, *self._served_by(), *self._postgres_pids()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _served_by(self) -> list[int]:
        return self._pids_of(*MODULES)

    async def remove(self) -> None:
        """Stop the service, and delete its data."""
        if self.is_running():
            await self.stop()
        self.kill_everything()
        await eventually(lambda: not self._postgres_pids(), "Postgres is gone")
        shutil.rmtree(self.folder, ignore_errors=True)

    async def verify(self) -> dict[str, Any]:
        """Return the report of `fundledger verify --json`."""
        done = await run("verify", "--json", env=self.environment, cwd=self.folder)
        try:
            return dict(json.loads(done.stdout))
        except ValueError:
            raise AssertionError(f"verify: status {done.returncode}\n{done.stdout}\n{done.stderr}") from None

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _postgres_pids(self) -> list[int]:
        pid = self.postgres_pid()
        return [] if pid is None else [pid]

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Return the processes with this service's data directory, or a path in it, on their command line.

        Only root can read the environment of processes that hold keys.
        """
        folder = os.fsencode(Path(self.environment["FUNDLEDGER_DATA_DIR"]).resolve())
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if any(word == folder or word.startswith(folder + b"/") for word in words):
                    yield int(path.name), b" ".join(words).decode(errors="replace")


def of_process(pid: int, name: str) -> bytes:
    """Return the file /proc/PID/NAME. A process that holds keys hides it from an ordinary user: then return b""."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except PermissionError:
        if os.geteuid() == 0:
            raise
        return b""


def clean_environment(overrides: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of this process without settings of the service, changed by `overrides`.

    Certificates are disabled: aiohttp would load those of the machine twice at each start, which takes 40 ms.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FUNDLEDGER_")}
    inherited["SSL_CERT_FILE"] = os.devnull
    return {name: value for name, value in {**inherited, **overrides}.items() if value is not None}


async def run(
    *arguments: str, env: Mapping[str, str | None], cwd: Path, within_s: float = 120.0
) -> "subprocess.CompletedProcess[str]":
    """Run one `fundledger` command, and wait for its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [str(COMMAND), *arguments],
        env=clean_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
