"""Benchmark scenarios. Scenarios that use the same service instance stand together."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import database
from benchmarks.child import Child, answers, free_port
from benchmarks.cut import cut
from benchmarks.figures import (
    BULK_FLOOR,
    GROWTH_FLOOR,
    MEMORY_FLOOR,
    NAIVE_FLOOR,
    RATE_FLOOR,
    START_FLOOR,
    Figure,
    open_figures,
    rate_figure,
    single_figure,
    tail_figure,
)
from benchmarks.fund_kill import fund_kill
from benchmarks.limits_drill import limits
from benchmarks.mechanisms import mechanisms
from benchmarks.open_loop import open_loop, poisson
from benchmarks.overload import overload
from benchmarks.reference import Reference
from benchmarks.refund_race import refund_race
from benchmarks.runs import Run, median_rate
from benchmarks.service import SWEEP_SIZE, Service
from benchmarks.session import SERVICE, Contender, Session
from benchmarks.single_connection import single_connection
from benchmarks.whole import whole
from benchmarks.wrk import full_speed

ONE_WORKER = ("hot", "uniform", "bulk", "single", "open", "memory", "start")
FUND: Final[dict[str, Callable[[Session], None]]] = {
    "whole": whole,
    "cut": cut,
    "fund-kill": fund_kill,
    "refund-race": refund_race,
}
"""Scenarios that run both the account service and the fund service."""
NAMES = (*ONE_WORKER, "two", "growth", "mechanisms", "overload", "limits", *FUND)
REFERENCE = "reference"
REFERENCE_NAIVE = "reference, naive"
NAIVE = "naive (direct)"
NOOP = "no-op"
BARE = "bare insert"
BASELINE_S = 2
BULK_SIZE = 1000
BULK_CONNECTIONS = 8
OPEN_SHARE = 0.6
GROWN_ENTRIES, YOUNG_ENTRIES = 20_000_000, 200_000
GROWN_BYTES = 24 << 30


def run_all(session: Session) -> None:
    """Run all scenarios of the plan. Raises BenchFault."""
    if session.wants(*ONE_WORKER):
        one_worker(session)
    if session.wants("two"):
        two_workers(session)
    if session.wants("growth") and (session.plan.long or session.plan.only):
        growth(session)
    if session.wants("mechanisms") and (session.plan.long or session.plan.only):
        mechanisms(session)
    if session.wants("overload") and (session.plan.long or session.plan.only):
        overload(session)
    if session.wants("limits") and (session.plan.long or session.plan.only):
        limits(session)
    for name, scenario in FUND.items():
        # The end-to-end scenario is part of every run. Fault tests are run only if the user names them.
        if session.wants(name) and (name == "whole" or name in session.plan.only):
            scenario(session)


def one_worker(session: Session) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(session.start_service("one worker", 1))
        reference = _start_reference(session, stack, "lanes", 1, service, "hot", "uniform", "bulk")
        capacity: float | None = None
        if session.wants("hot"):
            capacity = median_rate(hot(session, service, reference))
        if session.wants("uniform"):
            uniform(session, service, reference, 64)
        if session.wants("bulk"):
            bulk(session, service, reference)
        if session.wants("single"):
            single(session, service, reference)
        if session.wants("open"):
            scheduled(session, service, capacity)
        if reference is not None:
            session.check_reference(reference)
        if session.wants("memory"):
            memory(session, service)
        if session.wants("start"):
            start(session, service)
        session.prove("one worker", service)


def hot(session: Session, service: Service, reference: Reference | None) -> list[Run]:
    """Measure payments to one merchant, at the service and at all baselines. Return the runs of the service."""
    scenario = "one hot merchant, 64 connections, 1 worker"
    brief = min(BASELINE_S, session.plan.seconds)
    session.open_accounts(service, 1)
    contenders = [session.contender(SERVICE, service.traffic(1), 64, service.count)]
    with contextlib.ExitStack() as stack:
        slow: Reference | None = None
        if reference is not None:
            contenders.append(session.contender(REFERENCE, reference.traffic(1), 64, reference.count))
            slow = _start_reference(session, stack, "naive", 1, service, "hot")
            assert slow is not None
            contenders.append(session.contender(REFERENCE_NAIVE, slow.traffic(1), 64, slow.count, brief))
        naive = stack.enter_context(session.start_service("naive", 1, "direct"))
        session.open_accounts(naive, 1)
        contenders.append(session.contender(NAIVE, naive.traffic(1), 64, naive.count, brief))
        noop = _noop(service)
        with session.progress.step("start the no-op server"):
            stack.enter_context(noop)
        traffic = service.traffic(1).on_port(noop.port)
        contenders.append(session.contender(NOOP, traffic, 64, lambda run: run, brief))
        runs = session.alternate(scenario, contenders, service.dsn)
        if slow is not None:
            session.check_reference(slow)
        session.prove("naive", naive)
    if reference is not None:
        session.figures += [
            rate_figure(f"{scenario}: / reference", runs[SERVICE], runs[REFERENCE], RATE_FLOOR),
            rate_figure(f"{scenario}: / reference, naive", runs[SERVICE], runs[REFERENCE_NAIVE], NAIVE_FLOOR),
        ]
    session.figures += [
        rate_figure(f"{scenario}: / naive (direct)", runs[SERVICE], runs[NAIVE]),
        rate_figure(f"{scenario}: / no-op", runs[SERVICE], runs[NOOP]),
        tail_figure(f"{scenario}: p99 / p50", runs[SERVICE]),
    ]
    return runs[SERVICE]


def uniform(session: Session, service: Service, reference: Reference | None, connections: int) -> None:
    accounts = session.plan.accounts
    workers = "1 worker" if service.workers == 1 else f"{service.workers} workers"
    scenario = f"uniform over {accounts:,} accounts, {connections} connections, {workers}"
    session.open_accounts(service, accounts)
    contenders = [session.contender(SERVICE, service.traffic(accounts), connections, service.count)]
    if reference is not None:
        contenders.append(session.contender(REFERENCE, reference.traffic(accounts), connections, reference.count))
    runs = session.alternate(scenario, contenders, service.dsn)
    if reference is not None:
        session.figures.append(
            rate_figure(f"{scenario}: / reference", runs[SERVICE], runs[REFERENCE], RATE_FLOOR),
        )


def bulk(session: Session, service: Service, reference: Reference | None) -> None:
    session.open_accounts(service, session.plan.accounts)
    for which, accounts in (("one hot merchant", 1), (f"{session.plan.accounts:,} accounts", session.plan.accounts)):
        scenario = f"lists of {BULK_SIZE:,}, {which}, {BULK_CONNECTIONS} connections, 1 worker"
        ours = service.traffic(accounts, BULK_SIZE)
        contenders = [session.contender(SERVICE, ours, BULK_CONNECTIONS, service.count)]
        if reference is not None:
            theirs = reference.traffic(accounts, BULK_SIZE)
            contenders.append(session.contender(REFERENCE, theirs, BULK_CONNECTIONS, reference.count))
        runs = session.alternate(scenario, contenders, service.dsn)
        if reference is not None:
            session.figures.append(
                rate_figure(f"{scenario}: / reference", runs[SERVICE], runs[REFERENCE], BULK_FLOOR),
            )


def single(session: Session, service: Service, reference: Reference | None) -> None:
    """Measure a single caller that sends one request at a time. As a baseline, measure bare durable inserts in the same
    Postgres.
    """
    scenario = "single connection"
    session.open_accounts(service, 1)
    bare = database.prepare_bare_inserts(service.dsn)
    ours = service.traffic(1)
    seconds = min(BASELINE_S, session.plan.seconds)
    contenders = [
        Contender(SERVICE, lambda s: service.count(single_connection(service.port, ours.requests(), s)), seconds),
        Contender(BARE, lambda s: database.bare_inserts(bare, s), seconds),
    ]
    with contextlib.ExitStack() as stack:
        if reference is not None:
            of, theirs = reference, reference.traffic(1)
            contenders.append(
                Contender(REFERENCE, lambda s: of.count(single_connection(of.port, theirs.requests(), s)), seconds)
            )
        noop = _noop(service)
        with session.progress.step("start the no-op server"):
            stack.enter_context(noop)
        idle = ours.on_port(noop.port)
        contenders.append(Contender(NOOP, lambda s: single_connection(noop.port, idle.requests(), s), seconds))
        runs = session.alternate(scenario, contenders, service.dsn)
    session.figures.append(single_figure(runs[SERVICE], runs[BARE]))


def scheduled(session: Session, service: Service, capacity: float | None) -> None:
    """Measure open-loop latencies at a rate below the closed-loop capacity."""
    session.open_accounts(service, 1)
    traffic = service.traffic(1)
    if capacity is None:
        with session.progress.step("capacity", seconds=session.plan.seconds) as step:
            run = service.count(full_speed(traffic, 64, session.plan.seconds, session.plan.driver))
            capacity = run.rate
            step.result = f"{capacity:,.0f}/s"
    rate = OPEN_SHARE * capacity
    scenario = f"open loop, one hot merchant, {OPEN_SHARE:.0%} of capacity, 1 worker"
    plan = session.plan
    with session.progress.step(scenario, seconds=plan.warm_up_s + plan.open_loop_s) as step:
        requests, due = traffic.requests(), poisson(rate, seed=1)
        run = open_loop(service.port, requests, due, plan.open_loop_s, rate=rate, warm_up_s=plan.warm_up_s)
        service.count(run)
        step.result = (
            f"{rate:,.0f}/s, p50 {run.p50_ms:.2f} ms, p99 {run.p99_ms:.2f} ms; "
            f"driver: {run.cpu_share:.0%} of a processor, p99 {run.late_p99_ms:.2f} ms late"
        )
    session.runs[scenario] = {SERVICE: [run]}
    session.figures += open_figures(f"open loop at {rate:,.0f}/s, from when each was due", run)


def memory(session: Session, service: Service) -> None:
    accounts = session.plan.accounts_touched
    session.open_accounts(service, accounts)
    lists = -(-accounts // SWEEP_SIZE)
    with session.progress.step(f"pay {accounts:,} merchants once", total=lists) as step:
        service.touch_accounts(accounts, step.watch)
    name = f"memory of a worker after {accounts:,} accounts were touched"
    session.figures.append(Figure(name, service.worker_memory_mb(), "MB", MEMORY_FLOOR))


def start(session: Session, service: Service) -> None:
    with session.progress.step("stop, and start on existing data") as step:
        took = service.restart()
        step.result = f"ready in {took:.1f} s"
    session.figures.append(Figure("start to ready on existing data", took, "s", START_FLOOR))
    session.figures.append(Figure("start to ready with a new database", service.fresh_start_s, "s"))


def two_workers(session: Session) -> None:
    scenario = "one hot merchant, 256 connections, 2 workers"
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(session.start_service("two workers", 2))
        reference = _start_reference(session, stack, "lanes", 2, service, "two")
        session.open_accounts(service, 1)
        contenders = [session.contender(SERVICE, service.traffic(1), 256, service.count)]
        if reference is not None:
            contenders.append(session.contender(REFERENCE, reference.traffic(1), 256, reference.count))
        runs = session.alternate(scenario, contenders, service.dsn)
        if reference is not None:
            session.figures.append(
                rate_figure(f"{scenario}: / reference", runs[SERVICE], runs[REFERENCE], RATE_FLOOR),
            )
        if session.plan.long:
            uniform(session, service, reference, 64)
            uniform(session, service, reference, 256)
        if reference is not None:
            session.check_reference(reference)
        session.prove("two workers", service)


def growth(session: Session) -> None:
    """Compare the cost of a voucher in a ledger with many entries and in a ledger with few. The books are not proved,
    because the inserted entries have no valid MACs.
    """
    if shutil.disk_usage(session.root).free < GROWN_BYTES:
        session.notes.append(f"growth: skipped, it needs {GROWN_BYTES >> 30} GB of disk")
        return
    accounts = session.plan.accounts
    with session.start_service("old ledger", 1) as old, session.start_service("young ledger", 1) as young:
        for service, entries in ((old, GROWN_ENTRIES), (young, YOUNG_ENTRIES)):
            session.open_accounts(service, accounts)
            with session.progress.step(f"load {entries:,} entries", total=entries) as step:
                database.fill(service.dsn, entries, step.advance)
        for ids in ("ordered", "random"):
            scenario = f"{accounts:,} accounts, 64 connections, {ids} ids"
            contenders = [
                session.contender(name, service.traffic(accounts, ids=ids), 64, service.count)
                for name, service in ((f"{GROWN_ENTRIES:,} entries", old), (f"{YOUNG_ENTRIES:,} entries", young))
            ]
            grown, fresh = session.alternate(scenario, contenders, old.dsn).values()
            name = f"cost of a voucher, {GROWN_ENTRIES:,} entries / {YOUNG_ENTRIES:,}, {ids} ids"
            session.figures.append(rate_figure(name, fresh, grown, GROWTH_FLOOR))


def _start_reference(
    session: Session, stack: contextlib.ExitStack, mode: str, workers: int, service: Service, *wanted_by: str
) -> Reference | None:
    if session.plan.reference is None or not session.wants(*wanted_by):
        return None
    reference = session.start_reference(mode, workers, service)
    with session.progress.step(f"start the reference server, {mode}, {workers} workers"):
        stack.enter_context(reference)
    return reference


def _noop(service: Service) -> Child:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.noop", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return Child(command, port, answers("/"), service.data_dir / "noop.log", environment)
