"""Both services under load: what a front end reaches at the fund service's port, and what an operator sees of all."""

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fundledger.benchmarks.child import Child, free_port, get
from fundledger.benchmarks.database import moving_orders
from fundledger.benchmarks.drill_processes import children, command_line
from fundledger.benchmarks.runs import BenchFault
from fundledger.benchmarks.service import Proof, Service
from fundledger.benchmarks.wire import HOST

SIMULATOR: Final = "simulator"
PAUSE_S: Final = 0.5
IN_FLIGHT_S: Final = 60.0
PROCESSES: Final = {
    "account worker": "fundledger.app.server",
    "fund worker": "fundledger.app.fund.server",
    "daemons": "fundledger.app.fund.daemons",
    "simulator": "fundledger.fund.channels.simulator",
    "valkey": "valkey-server",
    "postgres": "/postgres -D",
}
"""What each kind of process has in its command line."""


class FundService(Service):
    """`fundledger serve` with the fund service.

    `account_url`: where the fund service shall find the account service, if not directly.
    """

    def __init__(
        self,
        data_dir: Path,
        workers: int,
        settings: Mapping[str, str],
        port: int | None = None,
        account_url: str = "",
    ) -> None:
        self.fund_port = free_port()
        self.simulator_port = free_port()
        own = {
            "FUND": "on",
            "FUND_PORT": str(self.fund_port),
            "SIMULATOR_PORT": str(self.simulator_port),
            "ACCOUNT_URL": account_url,
        }
        super().__init__(data_dir, workers, {**own, **settings}, port=port)

    def _is_ready(self, child: Child) -> bool:
        return super()._is_ready(child) and get(self.fund_port, "/readyz") is not None

    def processes(self, kind: str) -> list[int]:
        """Ids of those that run, of one of `PROCESSES`."""
        mark = PROCESSES[kind]
        return [child.pid for child in children(self._child.pid) if mark in command_line(child.pid)]

    @property
    def _simulator_headers(self) -> dict[str, str]:
        token = (self.data_dir / "simulator-token").read_text().strip()
        return {"Authorization": f"Bearer {token}"}

    def behave(self, **behaviour: float) -> None:
        """What is left out is done well. Raises BenchFault when the simulator does not answer."""
        body = json.dumps(behaviour).encode()
        url = f"http://{HOST}:{self.simulator_port}/behaviour"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, body, {"Content-Type": "application/json", **self._simulator_headers}),
                timeout=10,
            ) as answer:
                answer.read()
        except OSError as error:
            raise BenchFault(f"the simulator does not answer: {error}") from None

    def simulator_totals(self) -> dict[str, int]:
        """What became of the payouts that it was asked for. Raises BenchFault."""
        totals: dict[str, int] = json.loads(get(self.simulator_port, "/totals", headers=self._simulator_headers))
        return totals

    async def moving_orders(self) -> int:
        """How many orders of the database are `posting` or have an end that is not recorded. Raises what asyncpg
        raises, and OSError.
        """
        return await moving_orders((self.data_dir / "fund-dsn").read_text().strip())

    def verified(self) -> dict[str, Any]:
        """What `fundledger verify --json` prints, with `exit`. Raises BenchFault when it prints no report."""
        done = self._verify()
        try:
            return {**json.loads(done.stdout), "exit": done.returncode}
        except ValueError:
            unread = (done.stderr or done.stdout).strip()[-300:]
            raise BenchFault(f"verify printed no report: {unread}") from None

    def prove_orders(self, asked: int, in_flight_max: int) -> Proof:
        """That the books are right, that fund and account agree, and that as many orders are posted as were answered:
        `asked`, and of those without an answer at most `in_flight_max`. Waits for those that are in flight, also for
        those that ended between the looks at the two databases."""
        give_up_at = time.monotonic() + IN_FLIGHT_S
        while True:
            report = self.verified()
            kinds = (report.get("fund") or {"by_kind": {}})["by_kind"].values()
            in_flight = any(of["in_flight"] or of["amount"] != of["moved"] for of in kinds)
            if not (in_flight and report["ok"]) or time.monotonic() > give_up_at:
                break
            time.sleep(PAUSE_S)
        vouchers = sum(of["vouchers"] for of in kinds)
        why = against(report)
        if why is None and not asked <= vouchers <= asked + in_flight_max:
            why = f"{vouchers} orders posted, {asked} acknowledged and at most {in_flight_max} in flight"
        return Proof(why is None, vouchers, asked, in_flight_max, report["elapsed_s"], why)


def against(report: Mapping[str, Any]) -> str | None:
    """What a report of `verify` has against the books of both services."""
    bad = [check["name"] for check in report.get("checks", []) if not check["ok"]]
    if bad or not report["ok"] or report["exit"]:
        return f"verify found differences: {', '.join(bad)}"
    fund = report.get("fund")
    if fund is None:
        return "verify says nothing of the fund service"
    unequal = [
        f"{kind}: {of['amount']} in orders, {of['moved']} in vouchers"
        for kind, of in fund["by_kind"].items()
        if not of["in_flight"] and of["amount"] != of["moved"]
    ]
    return "; ".join(unequal) or None
