"""Chaos test of both services: random processes are killed while clients send orders of all kinds.

A simulator takes the place of the bank: it fails, loses responses and bounces payouts. When every order has an outcome,
the books of both databases must be correct, the fund service and the account service must agree exactly, and the bank
must have paid the withdrawn amounts.
"""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import time
from collections import Counter
from typing import Any, Final

from benchmarks.cut import proof_of
from benchmarks.figures import Figure, Floor
from benchmarks.fund_load import FundLoad
from benchmarks.fund_service import PROCESSES, FundService, against
from benchmarks.report import table
from benchmarks.runs import BenchFault
from benchmarks.session import Page, Session
from benchmarks.whole import start_fund_service

NAME: Final = "fund-kill"
RATE = 60.0
EVERY_S = 8.0
ROUNDS: int | None = None
"""The test ends early after this number of kills of each kind of process. None: there is no such limit."""
ENDED_S = 900.0
"""Timeout in seconds for the end of all payouts. It is long, because a payout that the channel reports as absent does
not fail immediately.
"""
MERCHANTS: Final = 40
AGAIN_S: Final = 120.0
BACK_S: Final = 90.0
SLOW: Final = {
    "latency_ms": 20,
    "error_rate": 0.1,
    "lost_answer_rate": 0.05,
    "bounce_rate": 0.2,
    "settle_after_ms": 500,
}


def fund_kill(session: Session) -> None:
    """Run the chaos test of both services. Raises BenchFault."""
    with start_fund_service(session, NAME, 2, {"FUND_WORKERS": "2", "DAEMONS": "2"}) as service:
        asyncio.run(_drill(session, service))


async def _drill(session: Session, service: FundService) -> None:
    seed = secrets.randbits(32)
    load = FundLoad(service, seed, MERCHANTS, again=True)
    kills: Counter[str] = Counter()
    seconds = session.plan.seconds
    try:
        await load.open()
        await asyncio.to_thread(service.behave, **SLOW)
        with session.progress.step(f"{RATE:.0f} orders/s while processes are killed", seconds=seconds) as step:
            running = asyncio.create_task(load.run(RATE, seconds, step))
            await _kill_until(service, time.monotonic() + seconds, random.Random(seed), kills, running)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            step.result = f"{sum(kills.values())} kills; {load.told()}"
        await asyncio.to_thread(service.behave)
        await load.finish(AGAIN_S)
        with session.progress.step("wait until every order is posted or refused", seconds=AGAIN_S) as step:
            await load.look(order for order in load.orders if order.outstanding)
            await load.send_again(AGAIN_S)
            await load.at_rest(AGAIN_S)
            step.result = load.told()
        with session.progress.step("wait until every payout is paid or bounced", seconds=ENDED_S) as step:
            under_way = await load.ended(ENDED_S, step)
        with session.progress.step("compare lists and balances with the requests") as step:
            await load.compare()
            totals = await asyncio.to_thread(service.simulator_totals)
            _compare_payouts(load, totals, len(under_way))
            report = await asyncio.to_thread(service.verified)
            step.result = "equal" if not load.found.counts else f"DIFFERENCES: {load.found.counts}"
    finally:
        await load.close()
    session.proofs[NAME] = proof_of(load, report)
    session.figures += [
        Figure(f"{NAME}: differences", sum(load.found.counts.values()), "", Floor(0, at_most=True)),
        Figure(f"{NAME}: kinds of processes never killed", len(PROCESSES) - len(kills), "", Floor(0, at_most=True)),
        Figure(f"{NAME}: withdrawals and refunds still under way", len(under_way), "", Floor(0, at_most=True)),
    ]
    session.pages.append(_page(seed, load, kills, totals, report))


async def _kill_until(
    service: FundService, end: float, chance: random.Random, kills: Counter[str], running: "asyncio.Task[None]"
) -> None:
    """Kill random processes, in rounds of one process of each kind. Raises BenchFault if a killed process is not
    replaced.
    """
    waiting: list[str] = []
    while (waiting or ROUNDS is None or min(kills[kind] for kind in PROCESSES) < ROUNDS) and not running.done():
        wait_s = EVERY_S * chance.uniform(0.7, 1.3)
        if time.monotonic() + wait_s > end:
            await running
            return
        await asyncio.sleep(wait_s)
        waiting = waiting or chance.sample(list(PROCESSES), len(PROCESSES))
        kind = waiting.pop()
        there = service.processes(kind)
        if not there:
            raise BenchFault(f"there is no {kind} to kill")
        killed = chance.choice(there)
        os.kill(killed, signal.SIGKILL)
        kills[kind] += 1
        await _replaced(service, kind, killed, len(there))


async def _replaced(service: FundService, kind: str, killed: int, wanted: int) -> None:
    give_up_at = time.monotonic() + BACK_S
    while True:
        there = service.processes(kind)
        if killed not in there and len(there) >= wanted:
            break
        if time.monotonic() > give_up_at:
            raise BenchFault(f"the {kind} that was killed is not replaced after {BACK_S:.0f} s")
        await asyncio.sleep(0.05)
    while kind == "simulator":
        # A restarted simulator keeps its payouts but loses the settings of its faults, so set them again.
        with contextlib.suppress(BenchFault):
            await asyncio.to_thread(service.behave, **SLOW)
            return
        if time.monotonic() > give_up_at:
            raise BenchFault("the simulator does not respond")
        await asyncio.sleep(0.1)


def _compare_payouts(load: FundLoad, totals: dict[str, int], under_way: int) -> None:
    """Compare the bank's payouts and refunds with the orders. The bank may have paid more than the orders only if a
    payout has no outcome yet.
    """
    for path, amount, conflicts in (
        ("withdrawals", "paid_amount", "conflicts"),
        ("refunds", "refunded_amount", "refund_conflicts"),
    ):
        paid = load.paid_out(path)
        if totals[amount] < paid or (not under_way and totals[amount] != paid):
            load.found.add("payout", f"the bank paid {totals[amount]}, {path} sum to {paid}")
        if totals[conflicts]:
            load.found.add("payout", f"{totals[conflicts]} {path} were requested again with different terms")


def _page(seed: int, load: FundLoad, kills: Counter[str], totals: dict[str, int], report: dict[str, Any]) -> Page:
    states = Counter((order.path, order.state) for order in load.orders)
    rows = [(path, state, f"{count:,}") for (path, state), count in sorted(states.items())]
    killed = ", ".join(f"{count} x {kind}" for kind, count in sorted(kills.items()))
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(load.answers.items()))
    verified = against(report) or f"ok, {len(report['checks'])} checks, {report['vouchers']:,} vouchers"
    text = [
        f"{NAME}, seed {seed}: {len(load.orders):,} orders, killed {killed or 'none'}",
        "",
        table(("kind", "state", "orders"), rows),
        "",
        f"attempts: {answers}",
        f"bank: {totals}; paid here: withdrawals {load.paid_out('withdrawals')}, refunds {load.paid_out('refunds')}",
        f"verify: {verified}",
        f"differences: {load.found.counts or 'none'}",
        *load.found.shown,
    ]
    members = {
        "seed": seed,
        "kills": dict(kills),
        "orders": {f"{path} {state}": count for (path, state), count in states.items()},
        "answers": dict(load.answers),
        "simulator": totals,
        "paid_out": load.paid_out("withdrawals"),
        "refunded": load.paid_out("refunds"),
        "fund": report.get("fund"),
        "differences": load.found.counts,
        "shown": load.found.shown,
    }
    return Page(NAME, "\n".join(text), members)
