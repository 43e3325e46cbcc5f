"""Rate limit test: a merchant sends twice its limit while Valkey is stopped, resumed and killed.

No request may fail because of the outage, and the limit must hold approximately. Within two seconds after the outage,
normal operation must return without a burst. The test then measures the cost of the limiter: it runs the service with
and without the limiter, in turn.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.figures import Figure, Floor, rate_figure
from benchmarks.mix import Mix
from benchmarks.mixed_loop import PATIENCE_S, Answer, MixedRun, mixed_loop
from benchmarks.open_loop import open_loop, poisson
from benchmarks.outcomes import outcomes_of
from benchmarks.overload import NEVER_REACHED, count_mixed, fund
from benchmarks.plot_lines import lines
from benchmarks.runs import BenchFault, OpenRun, median_rate
from benchmarks.service import Service, accepted
from benchmarks.session import Page, Session
from benchmarks.watch import Watch

WORKERS: Final = 2
RATE: Final = 500
BURST: Final = 50
TIMES_LIMIT: Final = 2
BEFORE_S, OUTAGE_S, AFTER_S, KILLED_S = 6.0, 10.0, 6.0, 6.0
MODE: Final = "fundledger_ratelimit_mode"
WATCHED: Final = (MODE, "fundledger_ratelimit_decisions_total")
WATCHED_EVERY_S: Final = 0.05
STEADY_S: Final = 1.0
RECOVER_S: Final = 2.0
NO_LIMITER: Final = "this version has no limiter"
NO_MODE: Final = f"/metrics does not show {MODE}"
COST_SHARE: Final = 0.6
COST_CONNECTIONS: Final = 64
ON, OFF = "limiter on", "limiter off"
Samples = Sequence[tuple[int, dict[str, float]]]
DRILL_FILE: Final = f"""version = 1

[[policy]]
name = "merchant"
key = "merchant"
rate = {RATE}
burst = {BURST}
mode = "leased"
"""


@dataclass(frozen=True)
class Outage:
    """An outage of Valkey, which ends at `back_ns`. `recovered_s` is the time in seconds from `back_ns` to normal
    operation; None if the service did not report its mode.
    """

    what: str
    gone_ns: int
    back_ns: int
    ends_ns: int
    recovered_s: float | None
    admitted_meanwhile: float
    admitted_first_second: int
    server_errors: int
    p99_before_ms: float | None
    p99_first_second_ms: float | None
    p99_later_ms: float | None


def limits(session: Session) -> None:
    """Run the rate limit test: the outages of Valkey, then the cost of the limiter. Raises BenchFault."""
    outages(session)
    cost(session)


def outages(session: Session) -> None:
    file = session.root / "limits.toml"
    file.write_text(DRILL_FILE)
    settings = _limiter(session, "on", file)
    with session.start_service("limits", WORKERS, settings=settings) as service:
        session.open_accounts(service, 1)
        fund(service, 1)
        pid = service.valkey_pid()
        if pid is None:
            raise BenchFault("the service has no embedded Valkey that could be stopped")
        run, watch, at = _drive(session, service, pid)
        session.prove("limits", service)
    stopped, resumed, killed = at["stopped"], at["resumed"], at["killed"]
    seen = [
        _outage("stopped", run, watch, stopped, resumed, killed),
        _outage("killed", run, watch, killed, killed, run.ended_ns),
    ]
    against = run.no_verdict or (None if "RATELIMIT_FILE" in settings else NO_LIMITER)
    session.figures += _figures(run, seen, against)
    times = alarms(watch.samples, [(stopped, resumed), (killed, killed)])
    unseen = against or (None if in_fallback(watch.samples) else NO_MODE)
    name = "limits: went into fallback although Valkey was there"
    session.figures.append(Figure(name, times, "times", Floor(0, at_most=True), no_verdict=unseen))
    session.pages.append(_page(run, seen, at, watch))


def cost(session: Session) -> None:
    """Measure the cost of the limiter in pairs of runs, one run with and one run without the limiter. The results are
    the ratio of the peak rates, and the time that the limiter adds to the p99 at a rate below the peak.
    """
    file = session.root / "never_reached.toml"
    file.write_text(NEVER_REACHED)
    on = _limiter(session, "on", file)
    off = _limiter(session, "off", None)
    with session.start_service(ON, 1, settings=on) as with_it, session.start_service(OFF, 1, settings=off) as without:
        services = {ON: with_it, OFF: without}
        for service in services.values():
            session.open_accounts(service, 1)
        scenario = f"one hot merchant, {COST_CONNECTIONS} connections, 1 worker, limits that are never reached"
        contenders = [
            session.contender(name, service.traffic(1), COST_CONNECTIONS, service.count)
            for name, service in services.items()
        ]
        runs = session.alternate(scenario, contenders)
        session.figures.append(rate_figure(f"peak: {ON} / off", runs[ON], runs[OFF], Floor(0.95)))
        rate = COST_SHARE * min(median_rate(of) for of in runs.values())
        pairs = [_pair(session, services, rate, number) for number in range(1, session.plan.rounds + 1)]
        for name, service in services.items():
            session.prove(name, service)
    added = [with_.p99_ms - without_.p99_ms for with_, without_ in pairs]
    against = next((run.no_verdict for pair in pairs for run in pair if run.no_verdict), None)
    if "RATELIMIT_FILE" not in on:
        session.figures[-1] = replace(session.figures[-1], no_verdict=NO_LIMITER)
        against = NO_LIMITER
    name = f"p99 at {COST_SHARE:.0%} of the peak: {ON} - off"
    spread = (min(added), max(added))
    session.figures.append(Figure(name, median(added), "ms", Floor(1, at_most=True), spread, against))
    session.runs[f"open loop at {rate:,.0f}/s, {COST_SHARE:.0%} of the peak"] = {
        ON: [pair[0] for pair in pairs],
        OFF: [pair[1] for pair in pairs],
    }


def _limiter(session: Session, mode: str, file: Path | None) -> dict[str, str]:
    """Return settings that switch shedding and splitting off and set the limiter to `mode`. Settings that the installed
    version does not have are left out.
    """
    wanted = {"RATELIMIT": mode, "SHEDDING": "off", "SPLITTING": "off"}
    if file is not None:
        wanted["RATELIMIT_FILE"] = str(file)
    known = accepted(wanted)
    if "RATELIMIT_FILE" in wanted.keys() - known.keys() and NO_LIMITER not in session.notes:
        session.notes.append(NO_LIMITER)
    return known


def _drive(session: Session, service: Service, pid: int) -> tuple[MixedRun, Watch, dict[str, int]]:
    seconds = BEFORE_S + OUTAGE_S + AFTER_S + KILLED_S
    rate = float(TIMES_LIMIT * RATE)
    mix = Mix(service.token, [1.0], PATIENCE_S, {"payment": 1.0})
    at: dict[str, int] = {}

    def note(what: str, number: signal.Signals) -> Callable[[], None]:
        def act() -> None:
            os.kill(pid, number)
            at[what] = time.perf_counter_ns()

        return act

    acts = [
        threading.Timer(BEFORE_S, note("stopped", signal.SIGSTOP)),
        threading.Timer(BEFORE_S + OUTAGE_S, note("resumed", signal.SIGCONT)),
        threading.Timer(BEFORE_S + OUTAGE_S + AFTER_S, note("killed", signal.SIGKILL)),
    ]
    with (
        session.progress.step(
            f"{rate:,.0f} payments/s, limited to {RATE}; Valkey stops, and dies", seconds=seconds
        ) as step,
        Watch(service.metrics, WATCHED, WATCHED_EVERY_S) as watch,
    ):
        try:
            for act in acts:
                act.start()
            run = mixed_loop(service.port, mix.requests(1), poisson(rate, seed=1), seconds, rate=rate)
        finally:
            for act in acts:
                act.cancel()
        count_mixed(service, run)
        of = outcomes_of(run.answers)
        step.result = f"{of.offered} sent, {of.well} admitted, {of.limited_429} limited (429), {of.other} others"
    for act in acts:
        act.join()
    if len(at) < len(acts):
        raise BenchFault("the embedded Valkey ended unexpectedly")
    return run, watch, at


def _outage(what: str, run: MixedRun, watch: Watch, gone_ns: int, back_ns: int, ends_ns: int) -> Outage:
    """Return the result of an outage. If the end of the outage is not known, the caller passes `gone_ns` as `back_ns`,
    and the outage counts as one second long.
    """
    second = 1_000_000_000
    recovered_s = recovery_s(watch.samples, back_ns, ends_ns)
    again_ns = back_ns + int((recovered_s or 0.0) * 1e9)
    until_ns = max(back_ns, gone_ns + second)
    meanwhile = _due(run.answers, gone_ns, until_ns)
    return Outage(
        what,
        gone_ns,
        back_ns,
        ends_ns,
        recovered_s,
        sum(answer.well for answer in meanwhile) / (RATE * (until_ns - gone_ns) / 1e9),
        sum(answer.well for answer in _due(run.answers, again_ns, again_ns + second)),
        sum(answer.status >= 500 for answer in _due(run.answers, gone_ns, ends_ns)),
        outcomes_of(_due(run.answers, gone_ns - 4 * second, gone_ns)).p99_ms,
        outcomes_of(_due(run.answers, gone_ns, gone_ns + second)).p99_ms,
        outcomes_of(_due(run.answers, gone_ns + second, ends_ns if back_ns == gone_ns else back_ns)).p99_ms,
    )


def recovery_s(samples: Samples, back_ns: int, ends_ns: int) -> float | None:
    """Return the seconds from `back_ns` to normal operation, which begins when no worker is in fallback for `STEADY_S`
    seconds.

    If normal operation does not begin before `ends_ns`, return the seconds from `back_ns` to `ends_ns`. Return None if
    the service did not report its mode.
    """
    told = [(at, value) for at, value in in_fallback(samples) if back_ns <= at < ends_ns]
    since: int | None = None
    for number, (at, value) in enumerate(told):
        since = None if value else since if since is not None else at if number else back_ns
        if since is not None and at - since >= STEADY_S * 1e9:
            return (since - back_ns) / 1e9
    return (ends_ns - back_ns) / 1e9 if told else None


def in_fallback(samples: Samples) -> list[tuple[int, bool]]:
    """Return `(time, whether any worker was in fallback)` for each sample that reports the modes of the workers."""
    told = []
    for at, of in samples:
        fallback = [value for key, value in of.items() if key.startswith(MODE) and 'mode="fallback"' in key]
        if fallback:
            told.append((at, any(fallback)))
    return told


def alarms(samples: Samples, away: Sequence[tuple[int, int]]) -> int:
    """Return how often a worker entered fallback outside the outages and the two seconds after them."""
    told = in_fallback(samples)
    begun = [at for (_, before), (at, now) in pairwise(told) if now and not before]
    return sum(not any(gone <= at < back + RECOVER_S * 1e9 for gone, back in away) for at in begun)


def _due(answers: Sequence[Answer], from_ns: int, to_ns: int) -> list[Answer]:
    return [answer for answer in answers if from_ns <= answer.due_ns < to_ns]


def _figures(run: MixedRun, outages_: Sequence[Outage], against: str | None) -> list[Figure]:
    errors = sum(answer.status >= 500 for answer in run.answers)
    figures = [Figure("limits: answers with 5xx", errors, "", Floor(0, at_most=True), no_verdict=against)]
    for of in outages_:
        name = f"limits, Valkey {of.what}"
        burst = RATE + 0.1 * BURST
        if of.what == "stopped":
            share = of.admitted_meanwhile
            figures += [
                Figure(f"{name}: admitted / limit, at most", share, "x", Floor(1.1, at_most=True), no_verdict=against),
                Figure(f"{name}: admitted / limit, at least", share, "x", Floor(0.8), no_verdict=against),
            ]
        unseen = against or (NO_MODE if of.recovered_s is None else None)
        figures += [
            Figure(
                f"{name}: recovered after",
                of.recovered_s or 0.0,
                "s",
                Floor(RECOVER_S, at_most=True),
                no_verdict=unseen,
            ),
            Figure(
                f"{name}: admitted in the first second after",
                of.admitted_first_second,
                "",
                Floor(burst, at_most=True),
                no_verdict=unseen,
            ),
        ]
        first, before = of.p99_first_second_ms, of.p99_before_ms
        if first is not None and before is not None:
            figures.append(
                Figure(
                    f"{name}: p99 of the first second, above that before",
                    first - before,
                    "ms",
                    Floor(6, at_most=True),
                    no_verdict=against,
                )
            )
        if of.p99_later_ms is not None and before is not None:
            figures.append(
                Figure(f"{name}: p99 later, above that before", of.p99_later_ms - before, "ms", no_verdict=against)
            )
    return figures


def _pair(session: Session, services: dict[str, Service], rate: float, number: int) -> tuple[OpenRun, OpenRun]:
    runs = []
    for name, service in services.items():
        seconds, warm_up_s = session.plan.open_loop_s, min(1.0, session.plan.warm_up_s)
        label = f"open loop at {rate:,.0f}/s: {name}, {number} of {session.plan.rounds}"
        with session.progress.step(label, seconds=seconds + warm_up_s) as step:
            requests, due = service.traffic(1).requests(), poisson(rate, seed=number)
            run = open_loop(service.port, requests, due, seconds, rate=rate, warm_up_s=warm_up_s)
            service.count(run)
            step.result = f"p50 {run.p50_ms:.2f} ms, p99 {run.p99_ms:.2f} ms"
        runs.append(run)
    return runs[0], runs[1]


def _page(run: MixedRun, outages_: Sequence[Outage], at: dict[str, int], watch: Watch) -> Page:
    seconds = int(run.seconds)
    by_second: list[list[Answer]] = [[] for _ in range(seconds + 1)]
    for answer in run.answers:
        by_second[min((answer.due_ns - run.began_ns) // 1_000_000_000, seconds)].append(answer)
    each_second = [outcomes_of(of) for of in by_second[:seconds]]
    names = [str(number) for number in range(seconds)]
    events = ", ".join(f"{what} at {(ns - run.began_ns) / 1e9:.1f} s" for what, ns in at.items())
    statuses = Counter(answer.status for answer in run.answers)
    told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    text = "\n".join(
        [
            f"limits: {run.asked_rate:,.0f} payments/s of one merchant, limited to {RATE}/s + {BURST}; Valkey {events}",
            "admitted each second: " + " ".join(str(of.well) for of in each_second),
            f"answers: {told}; {run.without_retry_after} refusals without Retry-After",
        ]
    )
    members: dict[str, Any] = {
        "rate": RATE,
        "burst": BURST,
        "asked_rate": run.asked_rate,
        "statuses": {str(status): count for status, count in statuses.items()},
        "problems": dict(run.problems),
        "without_retry_after": run.without_retry_after,
        "admitted_each_second": [of.well for of in each_second],
        "p99_ms_each_second": [of.p99_ms for of in each_second],
        "outages": [asdict(of) for of in outages_],
        "modes": [[round((ns - run.began_ns) / 1e9, 3), of] for ns, of in watch.samples],
        "no_verdict": run.no_verdict,
    }
    drawings = {
        "admitted": lines(
            f"admitted each second; limit {RATE}; {events}",
            names,
            {"asked": [of.offered for of in each_second], "admitted": [of.well for of in each_second]},
            "/s",
        ),
        "admitted-p99": lines(
            f"p99 of admitted requests; {events}", names, {"p99": [of.p99_ms for of in each_second]}, "ms", log=True
        ),
    }
    return Page("limits", text, members, drawings)
