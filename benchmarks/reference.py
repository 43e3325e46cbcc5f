"""Reference server of a benchmark: another, minimal payment service that is measured in the same run.

The user names the script of the server. The benchmark starts it as `python SCRIPT MODE --workers N --dsn DSN --port P`
with an empty database, in which the server creates its own tables. The folder of the script also contains the wrk
scripts `pay.lua` and `bulk.lua`. `GET /count` returns the number of posted payments.
"""

import json
import sys
from pathlib import Path

from benchmarks.child import Child, answers, free_port
from benchmarks.runs import Run
from benchmarks.traffic import Traffic, reference_traffic


class Reference(Child):
    """One running reference server."""

    def __init__(self, script: Path, mode: str, workers: int, dsn: str, log: Path) -> None:
        port = free_port()
        command = [sys.executable, str(script), mode, "--workers", str(workers), "--dsn", dsn, "--port", str(port)]
        super().__init__(command, port, answers("/count"), log)
        self._script = script
        self._acknowledged = 0
        self._in_flight_max = 0

    def traffic(self, accounts: int, size: int = 0) -> Traffic:
        return reference_traffic(self.port, self._script, accounts, size)

    def count(self, run: Run) -> Run:
        self._acknowledged += (run.answered - run.errors) * run.vouchers_each
        self._in_flight_max += run.in_flight_max * run.vouchers_each
        return run

    def disagreement(self) -> str | None:
        """Return how the server's count differs from the drivers' counts, None if it does not. If the counts differ,
        ratios are invalid.
        """
        counted = json.loads(self.get("/count"))
        posted = counted["payments"]
        if not self._acknowledged <= posted <= self._acknowledged + self._in_flight_max:
            return f"{posted} payments, {self._acknowledged} acknowledged and at most {self._in_flight_max} in flight"
        if counted["sum_of_balances"] != 0:
            return f"its balances sum to {counted['sum_of_balances']}"
        return None
