"""Overload test: measures how a service above its capacity answers requests of each class, and how a greedy merchant
affects the others.

The driver shares the processors with the service. So that the processors are not the bottleneck, the database bounds
the capacity of the service: commits are slowed down, and each commit has few vouchers. `--unbounded` removes this
bound. On a small machine the driver is then the bottleneck, and reports it.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks import database
from benchmarks.closed_loop import closed_loop
from benchmarks.figures import Figure, Floor
from benchmarks.mix import CRITICAL, SHARES, Mix
from benchmarks.mixed_loop import PATIENCE_S, MixedRun, mixed_loop
from benchmarks.open_loop import poisson
from benchmarks.outcomes import Outcomes, jain, outcomes_of, served_shares
from benchmarks.plot_lines import lines
from benchmarks.report import table
from benchmarks.runs import BenchFault
from benchmarks.service import Service, accepted
from benchmarks.session import Page, Session
from benchmarks.watch import Watch, series

WORKERS: Final = 2
MERCHANTS: Final = 100
MULTIPLES: tuple[float, ...] = (0.5, 1, 2, 5, 10)
CLOSED: Final = (32, 128)
"""Numbers of connections of the closed loops that measure the capacity. The best result counts."""
COMMIT_MS: Final = 20
BATCH_SIZE_MAX: Final = 4
NEVER_REACHED: Final = "version = 1\n" + "".join(
    f'\n[[policy]]\nname = "{key}"\nkey = "{key}"\nrate = 1000000\nburst = 100000\nmode = "leased"\n'
    for key in ("caller", "merchant", "class", "global")
)
"""Policies whose limits are never reached. The limiter must be on, because it determines the class of each request."""
FLOORS: Final[dict[float, tuple[Floor, Floor | None, Floor | None]]] = {
    2: (Floor(0.9), Floor(0.999), Floor(1.5, at_most=True)),
    5: (Floor(0.8), None, None),
}
"""Limits that the results must meet, by load as a multiple of the capacity: for the goodput, for the share of
successful critical requests, and for the p99 of critical requests.
"""
FAIR_LOAD: Final = 0.95
GREEDY: Final = 10
CALM_S = 10.0
"""Pause in seconds after the steps of load. Shedding ends within this time."""
QUIET_S: Final = 180.0
LEVEL: Final = "fundledger_shed_level"
WATCHED: Final = (LEVEL, "fundledger_shed_requests_total", "fundledger_inflight", "fundledger_concurrency_limit")
ALL: Final = "all"


@dataclass
class Step:
    """One open-loop run. `classes` includes `all`; `goodput` and `postings` are shares of the peak.

    `jain` is computed over merchants with equal load. `quiet_s` is the time in seconds until the service had no more
    work after the run.
    """

    name: str
    multiple: float
    run: MixedRun
    classes: dict[str, Outcomes]
    goodput: float
    postings: float
    memory_mb_max: float
    level_max: float | None
    jain: float
    quiet_s: float
    others: Outcomes | None = None
    shed: dict[str, float] = field(default_factory=dict)

    def members(self) -> dict[str, Any]:
        run = self.run
        others = None if self.others is None else asdict(self.others) | {"share_well": self.others.share_well}
        return {
            "name": self.name,
            "multiple": self.multiple,
            "asked_rate": run.asked_rate,
            "seconds": run.seconds,
            "classes": {name: asdict(of) | {"share_well": of.share_well} for name, of in self.classes.items()},
            "others": others,
            "goodput_of_peak": self.goodput,
            "postings_of_peak": self.postings,
            "quiet_s": self.quiet_s,
            "memory_mb_max": self.memory_mb_max,
            "level_max": self.level_max,
            "jain": self.jain,
            "shed": self.shed,
            "problems": dict(run.problems),
            "without_retry_after": run.without_retry_after,
            "driver_cpu_share": run.cpu_share,
            "driver_late_p99_ms": run.late_p99_ms,
            "no_verdict": run.no_verdict,
        }


def overload(session: Session) -> None:
    """Run the overload test at each multiple of the capacity. Raises BenchFault."""
    bounded = {} if session.plan.unbounded else {"BATCH_SIZE_MAX": str(BATCH_SIZE_MAX)}
    file = session.root / "never_reached.toml"
    file.write_text(NEVER_REACHED)
    # Do not split accounts: a split during the run would change the capacity.
    own = {"RATELIMIT": "on", "RATELIMIT_FILE": str(file), "SPLITTING": "off"}
    # Measure the capacity without shedding. With shedding, a closed loop would replace each shed request by another
    # request, and so measure another mix of classes.
    with _started(session, "capacity", {**accepted({**own, "SHEDDING": "off"}), **bounded}) as service:
        peak = _peak(session, service)
        session.prove("capacity", service)
    with _started(session, "overload", {**accepted(own), **bounded}) as service:
        even = [1.0] * MERCHANTS
        steps = [_step(session, service, f"{multiple:g} x", multiple, peak, even) for multiple in MULTIPLES]
        time.sleep(CALM_S)
        calm = _step(session, service, "all alike", FAIR_LOAD, peak, even)
        with_greed = [float(GREEDY), *even[1:]]
        greedy = _step(session, service, "one greedy", FAIR_LOAD * sum(with_greed) / MERCHANTS, peak, with_greed)
        session.prove("overload", service)
    session.figures += _figures(steps, calm, greedy)
    session.pages.append(_page(session, peak, steps, [calm, greedy]))


@contextmanager
def _started(session: Session, name: str, settings: dict[str, str]) -> Iterator[Service]:
    with session.start_service(name, WORKERS, settings=settings) as service:
        session.open_accounts(service, MERCHANTS)
        fund(service, MERCHANTS)
        if not session.plan.unbounded:
            database.slow_commits(service.dsn, COMMIT_MS)
        yield service


def fund(service: Service, merchants: int) -> None:
    """Credit each merchant with more than it spends in the test. Raises BenchFault."""
    run = closed_loop(service.port, Mix(service.token, [1.0] * merchants, PATIENCE_S).funding(), 1)
    if run.errors:
        raise BenchFault("the merchants could not be funded")
    service.acknowledged += merchants


def count_mixed(service: Service, run: MixedRun) -> MixedRun:
    """Record a run's counts for the proof of the books. A refusal because of a quota or of capacity is no error."""
    service.acknowledged += run.acknowledged
    service.in_flight_max += run.uncertain
    service.errors += outcomes_of(run.answers).other
    return run


@dataclass(frozen=True)
class Rates:
    """Rates per second of successful requests and of postings. Reads count only in `requests`, because a read needs no
    commit.
    """

    requests: float
    postings: float


def rates(run: MixedRun) -> Rates:
    in_time = run.in_time
    return Rates(len(in_time) / run.seconds, sum(answer.vouchers > 0 for answer in in_time) / run.seconds)


def _peak(session: Session, service: Service) -> Rates:
    """Return the capacity of the service."""
    mix, best = Mix(service.token, [1.0] * MERCHANTS, PATIENCE_S), Rates(0, 0)
    with session.progress.step("warm-up", seconds=session.plan.warm_up_s):
        count_mixed(
            service, mixed_loop(service.port, mix.requests(0), None, session.plan.warm_up_s, connections=CLOSED[0])
        )
    for connections in CLOSED:
        with session.progress.step(f"capacity, {connections} connections", seconds=session.plan.seconds) as step:
            run = mixed_loop(
                service.port, mix.requests(connections), None, session.plan.seconds, connections=connections
            )
            count_mixed(service, run)
            found = rates(run)
            step.result = f"{found.requests:,.0f} requests/s, driver: {run.cpu_share:.0%} of a processor"
        best = max(best, found, key=lambda of: of.requests)
    if not best.postings:
        raise BenchFault("no request succeeded")
    return best


def _step(session: Session, service: Service, name: str, multiple: float, peak: Rates, weights: list[float]) -> Step:
    rate = multiple * peak.requests
    mix = Mix(service.token, weights, PATIENCE_S)
    seconds = session.plan.open_loop_s
    with (
        session.progress.step(f"{name}: {rate:,.0f} requests/s", seconds=seconds) as progress,
        Watch(service.metrics, WATCHED, 0.5) as watch,
    ):
        askings, due = mix.requests(round(multiple * 100)), poisson(rate, seed=round(multiple * 100))
        run = count_mixed(service, mixed_loop(service.port, askings, due, seconds, rate=rate))
        of_all = outcomes_of(run.answers)
        progress.result = f"{of_all.share_well:.1%} well; driver: {run.cpu_share:.0%} of a processor"
    classes = {kind: outcomes_of(answer for answer in run.answers if answer.kind == kind) for kind in SHARES}
    alike = [number for number, weight in enumerate(weights, 1) if weight == weights[-1]]
    greedy = len(alike) < len(weights)
    last = watch.samples[-1][1] if watch.samples else {}
    found = rates(run)
    return Step(
        name,
        multiple,
        run,
        {**classes, ALL: of_all},
        found.requests / peak.requests,
        found.postings / peak.postings,
        service.worker_memory_mb_max(),
        watch.greatest(LEVEL),
        jain(served_shares(run.answers, alike)),
        _until_quiet(service),
        outcomes_of(answer for answer in run.answers if answer.merchant != 1) if greedy else None,
        {key: value for key, value in last.items() if key.startswith(WATCHED[1])},
    )


def _until_quiet(service: Service) -> float:
    """Wait until the service has no queued work, and return the seconds that this took. After a run the service may
    still execute requests whose clients gave up. Raises BenchFault.
    """
    began = time.monotonic()
    while True:
        waiting = series(service.metrics(), ("fundledger_lane_waiting_commands", "fundledger_lane_in_flight_commands"))
        if not sum(waiting.values()):
            return time.monotonic() - began
        if time.monotonic() - began > QUIET_S:
            raise BenchFault(f"there is still work {QUIET_S:.0f} s after the last request")
        time.sleep(0.1)


def _figures(steps: list[Step], calm: Step, greedy: Step) -> list[Figure]:
    figures = []
    idle = steps[0]
    for step in steps:
        goodput, well, tail = FLOORS.get(step.multiple, (None, None, None))
        name, against = f"overload {step.name}", step.run.no_verdict
        for what, share in (("goodput", step.goodput), ("postings", step.postings)):
            figures.append(Figure(f"{name}: {what} / peak", share, "x", goodput, no_verdict=against))
        if step is idle:
            continue
        worst = min(step.classes[kind].share_well for kind in CRITICAL)
        figures.append(Figure(f"{name}: {' and '.join(CRITICAL)} answered well", worst, "", well, no_verdict=against))
        ratios = [
            step.classes[kind].p99_ms / idle.classes[kind].p99_ms  # type: ignore[operator]
            for kind in CRITICAL
            if step.classes[kind].p99_ms and idle.classes[kind].p99_ms
        ]
        figures.append(
            Figure(
                f"{name}: their p99 / that at {idle.name}",
                max(ratios, default=0.0),
                "x",
                tail,
                no_verdict=against if ratios else "no request succeeded",
            )
        )
    assert greedy.others is not None
    against = greedy.run.no_verdict or calm.run.no_verdict
    before, after = calm.classes[ALL].p99_ms, greedy.others.p99_ms
    alike = f"one merchant asks {GREEDY} x its share"
    figures += [
        Figure(f"{alike}: the others answered well", greedy.others.share_well, "", Floor(0.999), no_verdict=against),
        Figure(
            f"{alike}: p99 of the others / when all are alike",
            after / before if after and before else 0.0,
            "x",
            Floor(1.2, at_most=True),
            no_verdict=against,
        ),
        Figure(f"{alike}: Jain's index of the others", greedy.jain, "", Floor(0.95), no_verdict=against),
    ]
    return figures


def _page(session: Session, peak: Rates, steps: list[Step], greed: list[Step]) -> Page:
    bound = "as fast as the machine" if session.plan.unbounded else f"commits + {COMMIT_MS} ms of {BATCH_SIZE_MAX}"
    seconds = session.plan.open_loop_s
    title = f"overload: peak {peak.requests:,.0f} requests/s ({bound}), {WORKERS} workers, {seconds:g} s a step"
    names = [step.name for step in steps]
    well: dict[str, list[float | None]] = {"goodput / peak": [100 * step.goodput for step in steps]}
    tails: dict[str, list[float | None]] = {}
    for kind in SHARES:
        well[kind] = [100 * step.classes[kind].share_well for step in steps]
        tails[kind] = [step.classes[kind].p99_ms for step in steps]
    return Page(
        "overload",
        "\n".join([title, "", *_tables([*steps, *greed])]),
        {
            "peak": asdict(peak),
            "bounded": not session.plan.unbounded,
            "shares": dict(SHARES),
            "steps": [step.members() for step in steps],
            "greed": [step.members() for step in greed],
        },
        {
            "goodput": lines("successful share of requests (goodput: share of the peak)", names, well, "%"),
            "p99": lines("p99 of successful requests", names, tails, "ms", log=True),
        },
    )


def _tables(steps: list[Step]) -> list[str]:
    classes = []
    for step in steps:
        shown = step.name
        rows = step.classes if step.others is None else {**step.classes, "the others": step.others}
        for kind, of in rows.items():
            classes.append((shown, kind, *_cells(of, step.run.seconds)))
            shown = ""
    wholes = [
        (
            step.name,
            f"{step.run.asked_rate:,.0f}",
            f"{step.goodput:.2f}",
            f"{step.postings:.2f}",
            f"{step.memory_mb_max:.0f}",
            "-" if step.level_max is None else f"{step.level_max:g}",
            f"{step.jain:.3f}",
            f"{step.quiet_s:.1f}",
            f"{step.run.cpu_share:.0%}",
            _most(step.run.problems),
        )
        for step in steps
    ]
    head = ("load", "asked/s", "goodput", "postings", "MB a worker", "level", "Jain", "quiet s", "driver", "problems")
    reasons = [f"no verdict on {step.name}: {step.run.no_verdict}" for step in steps if step.run.no_verdict]
    missing = [
        f"{step.name}: {step.run.without_retry_after} refusals came without Retry-After"
        for step in steps
        if step.run.without_retry_after
    ]
    return [
        table(
            ("load", "class", "asked", "well/s", "well", "429", "503", "gave up", "other", "p50 ms", "p99 ms"), classes
        ),
        "",
        table(head, wholes),
        *reasons,
        *missing,
    ]


def _cells(of: Outcomes, seconds: float) -> tuple[str, ...]:
    counts = (str(count) for count in (of.limited_429, of.shed_503, of.gave_up, of.other))
    times = ("-" if ms is None else f"{ms:.1f}" for ms in (of.p50_ms, of.p99_ms))
    return (str(of.offered), f"{of.well / seconds:,.0f}", f"{of.share_well:.1%}", *counts, *times)


def _most(problems: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in problems.most_common(3)) or "none"
