"""Server process of a benchmark. The process is started in its own process group, and stopped with all its children."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from benchmarks.runs import BenchFault
from benchmarks.wire import HOST

START_S = 90.0
STOP_S = 60.0
_STEP_S = 0.01


class Child:
    """A server process, whose output is written to `log`. While the server is not ready, `is_ready` returns False or
    raises BenchFault.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        is_ready: Callable[["Child"], bool],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self._command = list(command)
        self._is_ready = is_ready
        self._log = log
        self._environment = dict(os.environ if environment is None else environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start the server and return the seconds until it was ready. Raises BenchFault if the server does not get
        ready.
        """
        started = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            while time.monotonic() - started < START_S and self._process.poll() is None:
                if self._answers():
                    return time.monotonic() - started
                time.sleep(_STEP_S)
        except BaseException:
            self.stop()
            raise
        self.stop()
        tail = self._log.read_text(errors="replace").strip()[-800:]
        raise BenchFault(f"{' '.join(self._command[:4])} does not start:\n{tail}")

    def stop(self) -> None:
        """Stop the process group: send SIGTERM to the server, wait for its end, then send SIGKILL to the remaining
        processes.
        """
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def get(self, path: str, within_s: float = 30) -> bytes:
        """Send a GET to this server and return the body. Raises BenchFault if the status is not 200."""
        return get(self.port, path, within_s)

    def _answers(self) -> bool:
        try:
            return self._is_ready(self)
        except BenchFault:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def get(port: int, path: str, within_s: float = 30, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Send a GET to a local port and return the body. Raises BenchFault if the status is not 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=within_s)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchFault(f"GET {path}: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchFault(f"GET {path}: {answer.status}")
    return body


def answers(path: str) -> Callable[[Child], bool]:
    """Return a readiness check. It passes if a GET of this path is answered 200."""
    return lambda child: child.get(path) is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
