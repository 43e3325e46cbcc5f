"""The cut drill: the link from the fund service to the account service is cut under load, and heals.

Wanted: every order that was taken is posted or refused within a minute after that, by the services alone; nobody asks
for one again until then. None is posted twice, none is stuck.
"""

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from fundledger.benchmarks.child import free_port
from fundledger.benchmarks.figures import Figure, Floor
from fundledger.benchmarks.fund_load import FundLoad
from fundledger.benchmarks.fund_service import FundService, against
from fundledger.benchmarks.link import Form, Link
from fundledger.benchmarks.report import table
from fundledger.benchmarks.runs import BenchFault
from fundledger.benchmarks.service import Proof
from fundledger.benchmarks.session import Page, Session
from fundledger.benchmarks.whole import start_fund_service
from fundledger.benchmarks.wire import HOST

RATE = 150.0
BEFORE_S, CUT_S, AFTER_S = 8.0, 30.0, 8.0
MERCHANTS: Final = 40
KNOWN_S: Final = 60.0
AGAIN_S: Final = 60.0
ANSWER_S: Final = 60.0
FORMS: Final[tuple[Form, ...]] = ("reset", "swallow")
WORDS: Final = {"reset": "connections reset, new ones refused", "swallow": "connections hang"}


@dataclass(frozen=True)
class Cut:
    """What became of one cut. `first`: what the first call came to, by its state; `none`: it was not taken, or nobody
    said so. `known_s`: from the healing until no order that was taken was in doubt; None: not within `KNOWN_S`."""

    form: str
    orders: int
    first: dict[str, int]
    doubtful_at_healing: int
    known_s: float | None
    never_taken: int
    states: dict[str, int]
    differences: dict[str, int]
    shown: list[str]
    answers: dict[str, int]


def cut(session: Session) -> None:
    """Raises BenchFault."""
    seen = []
    for number, form in enumerate(FORMS):
        name = f"cut {form}"
        port = free_port()
        with Link(port) as link:
            url = f"http://{HOST}:{link.port}"
            with start_fund_service(session, name, 1, port=port, account_url=url) as service:
                found, proof = asyncio.run(_drill(session, service, link, form, number))
                session.proofs[name] = proof
                seen.append(found)
    session.figures += [figure for found in seen for figure in _figures(found)]
    session.pages.append(_page(seen))


async def _drill(session: Session, service: FundService, link: Link, form: Form, seed: int) -> tuple[Cut, Proof]:
    load = FundLoad(service, seed, MERCHANTS, again=False)
    try:
        await load.open()
        if not link.connections:
            raise BenchFault("the fund service does not go through the link")
        seconds = BEFORE_S + CUT_S + AFTER_S
        with session.progress.step(
            f"{RATE:.0f} orders/s, the link cut for {CUT_S:g} s ({form})", seconds=seconds
        ) as step:
            running = asyncio.create_task(load.run(RATE, seconds, step))
            await asyncio.sleep(BEFORE_S)
            link.cut(form)
            await asyncio.sleep(CUT_S)
            link.heal()
            healed = time.monotonic()
            doubtful = load.count("none", "posting", "created")
            # The load goes on: what is new has to get through beside what was left.
            await running
        await load.finish(ANSWER_S)
        first = Counter(order.first for order in load.orders)
        with session.progress.step("until nobody doubts any order that was taken", seconds=KNOWN_S) as step:
            left_s = KNOWN_S - (time.monotonic() - healed)
            within = await load.known_after(max(left_s, 1.0))
            known_s = None if within is None else time.monotonic() - healed
            step.result = load.told()
        never_taken = load.count("none")
        with session.progress.step("what was never taken is asked for again", seconds=AGAIN_S) as step:
            await load.send_again(AGAIN_S)
            await load.at_rest(AGAIN_S)
            step.result = load.told()
        with session.progress.step("compare lists and balances with what was asked") as step:
            await load.compare()
            report = await asyncio.to_thread(service.verified)
            step.result = "as asked" if not load.found.counts else f"DIFFERENCES: {load.found.counts}"
    finally:
        await load.close()
    states = Counter(order.state for order in load.orders)
    found = Cut(
        form,
        len(load.orders),
        dict(first),
        doubtful,
        known_s,
        never_taken,
        dict(states),
        load.found.counts,
        load.found.shown,
        dict(load.answers),
    )
    return found, proof_of(load, report)


def proof_of(load: FundLoad, report: dict[str, Any]) -> Proof:
    """Of the books, and of what was found beside them."""
    why = against(report) or ("; ".join(load.found.shown[:5]) or None)
    posted = sum(of["vouchers"] for of in (report.get("fund") or {"by_kind": {}})["by_kind"].values())
    asked = len(load.orders) - load.count("refused")
    return Proof(why is None, posted, asked, 0, report["elapsed_s"], why)


def _figures(found: Cut) -> list[Figure]:
    name = f"link cut for {CUT_S:g} s ({found.form})"
    stuck = sum(found.differences.get(kind, 0) for kind in ("stuck", "lost"))
    against_ = None if found.first.keys() - {"posted", "refused"} else "the cut hit nothing"
    late = KNOWN_S if found.known_s is None else found.known_s
    most = Floor(KNOWN_S, at_most=True)
    return [
        Figure(f"{name}: all known after", late, "s", most if found.known_s is not None else Floor(0, at_most=True)),
        Figure(f"{name}: orders in doubt when it healed", found.doubtful_at_healing, "", no_verdict=against_),
        Figure(f"{name}: stuck or lost", stuck, "", Floor(0, at_most=True)),
        Figure(f"{name}: posted twice", found.differences.get("doubled", 0), "", Floor(0, at_most=True)),
        Figure(f"{name}: other differences", sum(found.differences.values()) - stuck, "", Floor(0, at_most=True)),
    ]


def _page(seen: list[Cut]) -> Page:
    rows = []
    for found in seen:
        first = ", ".join(f"{count} {state}" for state, count in sorted(found.first.items()))
        then = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
        known = f"more than {KNOWN_S:g}" if found.known_s is None else f"{found.known_s:.1f}"
        rows.append((found.form, first, f"{found.doubtful_at_healing}", known, f"{found.never_taken}", then))
    head = ("cut", "first answers", "in doubt at healing", "known after s", "never taken", "in the end")
    words = "; ".join(f"{form}: {WORDS[form]}" for form in FORMS)
    shown = [line for found in seen for line in found.shown]
    title = f"cut: {RATE:.0f} orders/s, the link between the services cut for {CUT_S:g} s; {words}"
    return Page("cut", "\n".join([title, "", table(head, rows), *shown]), {"cuts": [asdict(found) for found in seen]})
