"""The service under a benchmark, as it is visible from outside: process, port, API token, database and metrics."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.child import Child, free_port
from benchmarks.closed_loop import closed_loop
from benchmarks.drill_processes import children, command_line
from benchmarks.figures import LAG_FLOOR, Figure
from benchmarks.runs import BenchFault, Run
from benchmarks.traffic import Traffic, buffering, opening, service_traffic, sweep

OPENING_CONNECTIONS = 128
SWEEP_SIZE = 1000
SWEEP_CONNECTIONS = 4
VERIFY_S = 1800
FOLLOWED_S = 2.5
"""The time in seconds within which every worker uses the changed posting policy of an account."""


@dataclass(frozen=True)
class Proof:
    """Result of a proof: whether the books are consistent and agree with the drivers' counts. If not, `why` is the
    reason.
    """

    ok: bool
    vouchers: int
    acknowledged: int
    in_flight_max: int
    elapsed_s: float
    why: str | None = None


class Service:
    """`fundledger serve` with its own data directory. `acknowledged` counts the acknowledged vouchers.

    `moves` is True if vouchers may have debited several slots, or may have been posted to rebalance an account.
    """

    def __init__(
        self,
        data_dir: Path,
        workers: int,
        settings: Mapping[str, str],
        posting: str = "lanes",
        port: int | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.workers = workers
        self.acknowledged = 0
        self.in_flight_max = 0
        self.errors = 0
        self.moves = False
        self._opened = 0
        data_dir.mkdir(mode=0o711)
        # Remove the settings of the environment, so that they do not affect the measurement.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FUNDLEDGER_")}
        given = {f"FUNDLEDGER_{name}": value for name, value in settings.items()}
        port = free_port() if port is None else port
        self._environment = {
            **clean,
            "FUNDLEDGER_FUND": "off",
            **given,
            "FUNDLEDGER_DATA_DIR": str(data_dir),
            "FUNDLEDGER_PORT": str(port),
            "FUNDLEDGER_WORKERS": str(workers),
            "FUNDLEDGER_POSTING": posting,
        }
        self._child = Child([_command(), "serve"], port, self._is_ready, data_dir / "serve.log", self._environment)
        self.fresh_start_s = self._child.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    @property
    def port(self) -> int:
        return self._child.port

    @property
    def token(self) -> str:
        return (self.data_dir / "dev-token").read_text().strip()

    @property
    def dsn(self) -> str:
        return (self.data_dir / "account-dsn").read_text().strip()

    def restart(self) -> float:
        """Restart the service on the existing data. Return the seconds from start to ready."""
        self._child.stop()
        return self._child.start()

    def traffic(self, accounts: int, size: int = 0, ids: str = "ordered", shape: str = "even") -> Traffic:
        return service_traffic(self.port, self.token, accounts, size, ids, shape)

    def has_accounts(self, count: int) -> bool:
        """Whether `open_accounts` has already opened at least `count` accounts."""
        return count <= self._opened

    def open_accounts(self, count: int, watch: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
        """Open the accounts of the merchants 1 to `count`. `watch` wraps the requests to show progress. Raises
        BenchFault.
        """
        if self.has_accounts(count):
            return
        requests = watch(opening(self.token, self._opened + 1, count))
        run = closed_loop(self.port, requests, min(OPENING_CONNECTIONS, count))
        if run.errors:
            raise BenchFault(f"{run.errors} of {run.answered} accounts could not be opened")
        self._opened = count

    def touch_accounts(self, count: int, watch: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Run:
        """Send one payment to each merchant. Raises BenchFault."""
        requests = watch(sweep(self.token, count, SWEEP_SIZE))
        run = closed_loop(self.port, requests, SWEEP_CONNECTIONS)
        if run.errors:
            raise BenchFault(f"{run.errors} of {run.answered} lists were refused")
        self.acknowledged += count
        return run

    def buffer_accounts(self, count: int, watch: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
        """Set the merchants 1 to `count` to buffered credits. Raises BenchFault."""
        run = closed_loop(self.port, watch(buffering(self.token, count)), 16)
        if run.errors:
            raise BenchFault(f"the credits of {run.errors} of {run.answered} accounts could not be buffered")
        time.sleep(FOLLOWED_S)

    def lag_figure(self) -> Figure:
        """Return the figure for the time within which 99 % of the buffered credits were drained. The time is the upper
        bound of a bucket of the service's histogram.
        """
        text = self.metrics()
        found = re.findall(r'^fundledger_buffered_wait_seconds_bucket\{le="(\S+)"\} (\S+)$', text, re.MULTILINE)
        counts = [(float(bound), float(count)) for bound, count in found]
        bound = next((bound for bound, count in counts if counts and count >= 0.99 * counts[-1][1]), 0.0)
        return Figure("99 % of the buffered credits were drained within", bound * 1000, "ms", LAG_FLOOR)

    def _drained(self) -> None:
        """Wait until the buffer is empty. Raises BenchFault."""
        for _ in range(100):
            if _gauge(self.metrics(), "fundledger_buffered_credits") == 0:
                return
            time.sleep(0.2)
        raise BenchFault("the buffer is not drained")

    def count(self, run: Run) -> Run:
        """Record the counts of a driver's run for the proof of the books. Return the run."""
        self.acknowledged += (run.answered - run.errors) * run.vouchers_each
        self.in_flight_max += run.in_flight_max * run.vouchers_each
        return self.judge(run)

    def judge(self, run: Run) -> Run:
        """Record only the number of errors of a run. Return the run."""
        self.errors += run.errors
        return run

    def metrics(self, within_s: float = 30) -> str:
        """Return the text of /metrics. Raises BenchFault."""
        return self._child.get("/metrics", within_s).decode()

    def worker_memory_mb_max(self) -> float:
        """Return the peak memory in MB of the running worker with the highest peak."""
        pids = [
            child.pid
            for child in children(self._child.pid)
            if "fundledger.app.account.server" in command_line(child.pid)
        ]
        return max((_memory_mb_max(pid) for pid in pids), default=0.0)

    def valkey_pid(self) -> int | None:
        """Return the pid of the embedded Valkey, None if no Valkey is embedded."""
        found = [child.pid for child in children(self._child.pid) if "valkey-server" in command_line(child.pid)]
        return found[0] if found else None

    def worker_memory_mb(self) -> float:
        """Return the mean resident memory of the workers in MB."""
        text = self.metrics()
        return _gauge(text, "fundledger_resident_memory_bytes") / _gauge(text, "fundledger_workers") / 1e6

    def _is_ready(self, child: Child) -> bool:
        # Wait for all workers. They share the port, so if only one worker were ready, it would get all connections.
        child.get("/readyz")
        return _gauge(child.get("/metrics").decode(), "fundledger_workers") == self.workers

    def prove(self) -> Proof:
        """Run `fundledger verify` while the service runs, and compare its counts with the counts of the drivers."""
        self._drained()
        done = self._verify()
        try:
            report = json.loads(done.stdout)
            ok, vouchers, entries = report["ok"], report["vouchers"], report["entries"]
            elapsed_s = report["elapsed_s"]
        except (ValueError, KeyError, TypeError):
            unread = f"verify printed no report: {(done.stderr or done.stdout).strip()[-300:]}"
            return Proof(False, 0, self.acknowledged, self.in_flight_max, 0.0, unread)
        why: str | None = None
        if not ok or done.returncode:
            bad = [check["name"] for check in report.get("checks", []) if not check["ok"]]
            why = f"verify found differences: {', '.join(bad)}"
        elif self.moves:
            pass
        elif not self.acknowledged <= vouchers <= self.acknowledged + self.in_flight_max:
            why = f"{vouchers} vouchers, {self.acknowledged} acknowledged and at most {self.in_flight_max} in flight"
        elif entries != 2 * vouchers:
            # A refused voucher is stored, but has no entries.
            why = f"{entries} entries of {vouchers} vouchers with two lines each"
        return Proof(why is None, vouchers, self.acknowledged, self.in_flight_max, elapsed_s, why)

    def _verify(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [_command(), "verify", "--json"],
            env=self._environment,
            cwd=self.data_dir,
            capture_output=True,
            text=True,
            check=False,
            timeout=VERIFY_S,
        )


def _command() -> str:
    """Return the path of the command `fundledger` in this environment. Raises BenchFault."""
    beside = Path(sys.executable).with_name("fundledger")
    found = str(beside) if beside.exists() else shutil.which("fundledger")
    if found is None:
        raise BenchFault("the command fundledger is not installed")
    return found


def accepted(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that this version of the service has. Raises BenchFault if the service rejects a value."""
    known = dict(settings)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FUNDLEDGER_")}
    while True:
        given = {f"FUNDLEDGER_{name}": value for name, value in known.items()}
        done = subprocess.run(
            [_command(), "settings"], env=clean | given, capture_output=True, text=True, check=False, timeout=60
        )
        if not done.returncode:
            return known
        unknown = re.search(r"FUNDLEDGER_(\w+) .*there is no such setting", done.stderr)
        if unknown is None or unknown[1] not in known:
            raise BenchFault(done.stderr.strip())
        del known[unknown[1]]


def _memory_mb_max(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1000 if found else 0.0


def _gauge(text: str, name: str) -> float:
    """Return the value of a gauge without labels. Raises BenchFault."""
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise BenchFault(f"/metrics does not show {name}")
    return float(found[1])
