"""Benchmark of the mechanisms for hot accounts, one after the other and combined.

Each contender is a separate service on the same machine; the contenders are measured in turn:

- naive: one transaction for each request
- lanes
- lanes with split accounts
- lanes with split accounts and buffered credits
- lanes with split accounts and a summarised journal
- lanes with split accounts, a summarised journal and early release
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks import database
from benchmarks.figures import Floor, rate_figure
from benchmarks.service import Service
from benchmarks.session import Contender, Session

PLAIN: Final = {"SPLITTING": "off", "JOURNAL": "entries", "EARLY_RELEASE": "off"}
NAIVE, LANES, SLOTS, BUFFERED, SUMMARY, EARLY = (
    "naive",
    "+ lanes",
    "+ slots",
    "+ buffered",
    "+ summary",
    "+ early release",
)
CONNECTIONS: Final = 64
SPREAD_OVER: Final = 1000
SHAPES: Final = {"hot": "one hot merchant", "zipf": f"Zipf 1.1 over {SPREAD_OVER:,}", "even": f"{SPREAD_OVER:,} alike"}


AT_ONCE: Final = {"SPLITTING": "auto", "HEAT_PROMOTE_S": "0", "HEAT_DEMOTE_S": "3600"}
"""Settings that make the service split hot accounts immediately, that is, before the next contender is measured."""
WORKERS: Final = (1, 2)
DELAYS_MS: Final = (0, 1, 2, 5)
MANY_WORKERS: Final = 4


@dataclass(frozen=True, eq=False)
class Mechanism:
    """A contender: its settings in addition to `PLAIN`, and whether it buffers the credits of merchants."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    buffered: bool = False
    posting: str = "lanes"


ALL: Final = (
    Mechanism(NAIVE, posting="direct"),
    Mechanism(LANES),
    Mechanism(SLOTS, {**AT_ONCE}),
    Mechanism(BUFFERED, {**AT_ONCE}, buffered=True),
    Mechanism(SUMMARY, {**AT_ONCE, "JOURNAL": "summary"}),
    Mechanism(EARLY, {**AT_ONCE, "JOURNAL": "summary", "EARLY_RELEASE": "on"}),
)


def mechanisms(session: Session) -> None:
    """Measure all contenders for each number of workers, commit delay and load. Raises BenchFault."""
    long = session.plan.long
    for workers in WORKERS:
        with contextlib.ExitStack() as stack:
            services = {m: _start(session, stack, m, workers) for m in ALL}
            for delay_ms in DELAYS_MS:
                for service in services.values():
                    database.slow_commits(service.dsn, delay_ms)
                for shape in SHAPES if long or delay_ms == 0 else ("hot",):
                    _compare(session, services, shape, delay_ms, workers)
            _refunds(session, services, workers)
            for mechanism, service in services.items():
                session.prove(f"{mechanism.name}, {_workers(workers)}", service)
    _many_workers(session)


def _workers(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _start(session: Session, stack: contextlib.ExitStack, mechanism: Mechanism, workers: int) -> Service:
    name = f"{mechanism.name.removeprefix('+ ')} {workers}"
    settings = {**PLAIN, **mechanism.settings}
    service = stack.enter_context(session.start_service(name, workers, mechanism.posting, settings))
    session.open_accounts(service, SPREAD_OVER)
    if mechanism.buffered:
        with session.progress.step("buffer the merchants' credits", total=SPREAD_OVER) as step:
            service.buffer_accounts(SPREAD_OVER, step.watch)
    return service


def _contenders(session: Session, services: Mapping[Mechanism, Service], shape: str) -> list[Contender]:
    accounts = 1 if shape in ("hot", "refund") else SPREAD_OVER
    return [
        session.contender(m.name, service.traffic(accounts, shape=shape), CONNECTIONS, service.count)
        for m, service in services.items()
    ]


def _compare(session: Session, services: Mapping[Mechanism, Service], shape: str, delay_ms: int, workers: int) -> None:
    disk = "" if delay_ms == 0 else f", commits slowed by {delay_ms} ms"
    scenario = f"{SHAPES[shape]}, {CONNECTIONS} connections, {_workers(workers)}{disk}"
    runs = session.alternate(scenario, _contenders(session, services, shape))
    floors: dict[tuple[str, str], Floor] = {}
    if shape == "hot" and delay_ms == 0:
        floors = {(SUMMARY, NAIVE): Floor(12)}
    if shape == "hot" and delay_ms == 2:
        floors = {(EARLY, SUMMARY): Floor(1.4)} if workers == 1 else {(SLOTS, LANES): Floor(1.6)}
    for (above, below), floor in floors.items():
        session.figures.append(rate_figure(f"{scenario}: {above} / {below}", runs[above], runs[below], floor))
    if shape == "even" and delay_ms == 0:
        hot = session.runs[scenario.replace(SHAPES["even"], SHAPES["hot"])]
        name = f"hot / alike, {CONNECTIONS} connections, {_workers(workers)}"
        session.figures.append(rate_figure(name, hot[SUMMARY], runs[SUMMARY], Floor(1)))


def _refunds(session: Session, services: Mapping[Mechanism, Service], workers: int) -> None:
    """Measure a load in which half of the requests debit the hot account."""
    for service in services.values():
        database.slow_commits(service.dsn, 0)
        service.moves = True
    scenario = f"refund storm on one hot merchant, {CONNECTIONS} connections, {_workers(workers)}"
    session.alternate(scenario, _contenders(session, services, "refund"))


def _many_workers(session: Session) -> None:
    """Compare buffered with direct posting, both without splits and without early release."""
    kinds = (Mechanism("direct"), Mechanism("buffered", buffered=True))
    with contextlib.ExitStack() as stack:
        services = {m: _start(session, stack, m, MANY_WORKERS) for m in kinds}
        for delay_ms in (0, 2):
            for service in services.values():
                database.slow_commits(service.dsn, delay_ms)
            disk = "" if delay_ms == 0 else f", commits slowed by {delay_ms} ms"
            scenario = f"credits of one hot merchant, {CONNECTIONS} connections, {_workers(MANY_WORKERS)}{disk}"
            runs = session.alternate(scenario, _contenders(session, services, "hot"))
            name = f"{scenario}: buffered / direct"
            session.figures.append(rate_figure(name, runs["buffered"], runs["direct"], Floor(1.3)))
        buffered = services[kinds[1]]
        session.figures.append(buffered.lag_figure())
        for mechanism, service in services.items():
            session.prove(f"{mechanism.name}, {_workers(MANY_WORKERS)}", service)
