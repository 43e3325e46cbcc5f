"""Both services under a benchmark: access to the fund service's port, the processes, the bank simulator and `fundledger
verify`.
"""

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.child import Child, free_port, get
from benchmarks.database import moving_orders
from benchmarks.drill_processes import children, command_line
from benchmarks.runs import BenchFault
from benchmarks.service import Proof, Service
from benchmarks.wire import HOST

SIMULATOR: Final = "simulator"
PAUSE_S: Final = 0.5
IN_FLIGHT_S: Final = 60.0
ENDS: Final = ("_paid", "_bounced")
"""Suffixes of the names of vouchers that post the end of an order."""
PROCESSES: Final = {
    "account worker": "fundledger.app.account.server",
    "fund worker": "fundledger.app.fund.server",
    "jobs": "fundledger.app.fund.jobs",
    "simulator": "fundledger.fund.channels.simulator",
    "valkey": "valkey-server",
    "postgres": "/postgres -D",
}
"""For each kind of process, the part of the command line that identifies a process of this kind."""


class FundService(Service):
    """`fundledger serve` with the fund service. `account_url` overrides the account service's URL."""

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
        """Return the process ids of the running processes of a kind (a key of `PROCESSES`)."""
        mark = PROCESSES[kind]
        return [child.pid for child in children(self._child.pid) if mark in command_line(child.pid)]

    @property
    def _simulator_headers(self) -> dict[str, str]:
        token = (self.data_dir / "simulator-token").read_text().strip()
        return {"Authorization": f"Bearer {token}"}

    def behave(self, **behaviour: float) -> None:
        """Set which faults the simulator causes. It causes no fault whose setting is omitted. Raises BenchFault."""
        body = json.dumps(behaviour).encode()
        url = f"http://{HOST}:{self.simulator_port}/behaviour"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, body, {"Content-Type": "application/json", **self._simulator_headers}),
                timeout=10,
            ) as answer:
                answer.read()
        except OSError as error:
            raise BenchFault(f"the simulator does not respond: {error}") from None

    def simulator_totals(self) -> dict[str, int]:
        """Return the simulator's totals of the requested payouts, by outcome. Raises BenchFault."""
        totals: dict[str, int] = json.loads(get(self.simulator_port, "/totals", headers=self._simulator_headers))
        return totals

    async def moving_orders(self) -> int:
        """Count the orders that are `posting`, and the withdrawals whose recorded end is not posted yet.

        Raises asyncpg's exceptions and OSError.
        """
        return await moving_orders((self.data_dir / "fund-dsn").read_text().strip())

    def verified(self) -> dict[str, Any]:
        """Return the report of `fundledger verify --json`, and the exit status as `exit`. Raises BenchFault if there is
        no report.
        """
        done = self._verify()
        try:
            return {**json.loads(done.stdout), "exit": done.returncode}
        except ValueError:
            unread = (done.stderr or done.stdout).strip()[-300:]
            raise BenchFault(f"verify printed no report: {unread}") from None

    def prove_orders(self, asked: int, in_flight_max: int) -> Proof:
        """Prove the books, the agreement of both services, and the number of posted orders.

        `asked` is the number of acknowledged orders. `in_flight_max` is the number of orders without a response, each
        of which may be posted. The method verifies again if orders are in flight, or if orders were posted between the
        reads of the two databases.
        """
        give_up_at = time.monotonic() + IN_FLIGHT_S
        while True:
            report = self.verified()
            kinds = (report.get("fund") or {"by_kind": {}})["by_kind"]
            in_flight = any(of["in_flight"] or of["amount"] != of["moved"] for of in kinds.values())
            if not (in_flight and report["ok"]) or time.monotonic() > give_up_at:
                break
            time.sleep(PAUSE_S)
        # The end of a withdrawal or a refund is another voucher of the same order.
        vouchers = sum(of["vouchers"] for name, of in kinds.items() if not name.endswith(ENDS))
        why = against(report)
        if why is None and not asked <= vouchers <= asked + in_flight_max:
            why = f"{vouchers} orders posted, {asked} acknowledged and at most {in_flight_max} in flight"
        return Proof(why is None, vouchers, asked, in_flight_max, report["elapsed_s"], why)


def against(report: Mapping[str, Any]) -> str | None:
    """Return a text with the errors in a `verify` report of both services, None if there are no errors."""
    bad = [check["name"] for check in report.get("checks", []) if not check["ok"]]
    if bad or not report["ok"] or report["exit"]:
        return f"verify found differences: {', '.join(bad)}"
    fund = report.get("fund")
    if fund is None:
        return "verify did not report on the fund service"
    unequal = [
        f"{kind}: {of['amount']} in orders, {of['moved']} in vouchers"
        for kind, of in fund["by_kind"].items()
        if not of["in_flight"] and of["amount"] != of["moved"]
    ]
    return "; ".join(unequal) or None
