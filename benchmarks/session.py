"""Benchmark session: the plan, the servers that the session starts, and the results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import database
from benchmarks.figures import Figure
from benchmarks.progress import Progress
from benchmarks.reference import Reference
from benchmarks.runs import Run
from benchmarks.service import Proof, Service
from benchmarks.traffic import Traffic
from benchmarks.wrk import full_speed

SERVICE = "service"


@dataclass(frozen=True)
class Plan:
    """Scenarios and durations of a session. `seconds` is the length of a run. A round has one run per contender."""

    only: frozenset[str]
    long: bool
    reference: Path | None
    driver: str
    rounds: int
    seconds: float
    warm_up_s: float
    open_loop_s: float
    accounts: int
    accounts_touched: int
    settings: dict[str, str]
    unbounded: bool = False


@dataclass(frozen=True)
class Page:
    """Additional report of a scenario: a text, members for the JSON report, and drawings by name."""

    name: str
    text: str
    members: dict[str, Any]
    drawings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """One of the servers that a scenario compares. `run(seconds)` sends load to the server once, and counts the
    acknowledged requests.
    """

    name: str
    run: Callable[[float], Run]
    seconds: float


@dataclass
class Session:
    """State of a session. `runs[scenario][contender]` is in execution order; `notes` are remarks for the report."""

    plan: Plan
    progress: Progress
    root: Path
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    proofs: dict[str, Proof] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    postgres: str = ""

    @property
    def failed(self) -> bool:
        """Whether a proof failed, or the service answered a valid request with an error."""
        return any(service.errors for service in self.services) or not all(p.ok for p in self.proofs.values())

    def wants(self, *names: str) -> bool:
        return not self.plan.only or not self.plan.only.isdisjoint(names)

    def start_service(
        self, name: str, workers: int, posting: str = "lanes", settings: Mapping[str, str] | None = None
    ) -> Service:
        """Start a service. The caller uses the service as a context manager, which stops it. Raises BenchFault."""
        with self.progress.step(f"start {name}") as step:
            given = {**(settings or {}), **self.plan.settings}
            service = Service(self.root / name.replace(" ", "-"), workers, given, posting)
            step.result = f"ready in {service.fresh_start_s:.1f} s with a new database"
        self.started(service)
        return service

    def started(self, service: Service) -> None:
        """Include the errors of a started service in the session's result."""
        self.services.append(service)
        if not self.postgres:
            self.postgres = database.facts(service.dsn)[0]

    def start_reference(self, mode: str, workers: int, beside: Service) -> Reference:
        """Create a reference server with a database in the service's Postgres.

        The caller uses the server as a context manager, which starts and stops it.
        """
        assert self.plan.reference is not None
        name = f"reference_{mode}_{workers}"
        dsn = database.create_database(beside.dsn, name)
        return Reference(self.plan.reference, mode, workers, dsn, beside.data_dir / f"{name}.log")

    def open_accounts(self, service: Service, count: int) -> None:
        if service.has_accounts(count):
            return
        with self.progress.step(f"open accounts of {count:,} merchants", total=count + 1) as step:
            service.open_accounts(count, step.watch)

    def contender(
        self,
        name: str,
        traffic: Traffic,
        connections: int,
        count: Callable[[Run], Run],
        seconds: float | None = None,
    ) -> Contender:
        def run(seconds_: float) -> Run:
            return count(full_speed(traffic, connections, seconds_, self.plan.driver))

        return Contender(name, run, self.plan.seconds if seconds is None else seconds)

    def alternate(self, scenario: str, contenders: Sequence[Contender], dsn: str | None = None) -> dict[str, list[Run]]:
        """Warm up all contenders, then measure them in rounds of one run each. Return the runs by contender.

        Compare only runs of the same round, because the speed of the machine drifts. `dsn` names a Postgres server; the
        report notes its checkpoints during the runs.
        """
        checkpoints = database.facts(dsn)[1] if dsn else 0
        for contender in contenders:
            warm_up_s = min(self.plan.warm_up_s, contender.seconds)
            with self.progress.step(f"{scenario}: {contender.name}, warm-up", seconds=warm_up_s):
                contender.run(warm_up_s)
        runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
        for number in range(1, self.plan.rounds + 1):
            for contender in contenders:
                label = f"{scenario}: {contender.name}, {number} of {self.plan.rounds}"
                with self.progress.step(label, seconds=contender.seconds) as step:
                    run = contender.run(contender.seconds)
                    step.result = f"{run.rate:,.0f}/s, p50 {run.p50_ms:.2f} ms, p99 {run.p99_ms:.2f} ms"
                    if run.errors:
                        step.result += f", {run.errors} ERRORS"
                runs[contender.name].append(run)
        if dsn and database.facts(dsn)[1] > checkpoints:
            self.notes.append(f"{scenario}: Postgres made a checkpoint during the runs")
        self.runs[scenario] = runs
        return runs

    def prove(self, name: str, service: Service) -> None:
        with self.progress.step(f"prove the books of {name}") as step:
            proof = self.proofs[name] = service.prove()
            step.result = f"{proof.vouchers:,} vouchers, ok" if proof.ok else f"FAILED: {proof.why}"

    def check_reference(self, reference: Reference) -> None:
        disagreement = reference.disagreement()
        if disagreement:
            self.notes.append(
                f"the reference server's counts are inconsistent, ratios to it are invalid: {disagreement}"
            )
