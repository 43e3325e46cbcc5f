"""Network-cut test: the connection from the fund service to the account service is cut under load, then restored.

Within a minute after the restoration, every accepted order must be posted or refused, without a retry by its caller. No
order may be posted twice, and no order may be stuck.
"""

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.child import free_port
from benchmarks.figures import Figure, Floor
from benchmarks.fund_load import FundLoad
from benchmarks.fund_service import FundService, against
from benchmarks.link import Form, Link
from benchmarks.report import table
from benchmarks.runs import BenchFault
from benchmarks.service import Proof
from benchmarks.session import Page, Session
from benchmarks.whole import start_fund_service
from benchmarks.wire import HOST

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
    """Result of one cut.

    `first` counts orders by the state in the first response. An order in the state `none` was not accepted, or got no
    response. `known_s` is the time in seconds from the restoration until every accepted order had a known outcome; None
    if that took longer than `KNOWN_S`.
    """

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
    """Run the network-cut test once for each form of cut. Raises BenchFault."""
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
            raise BenchFault("the fund service does not use the link")
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
            # Continue the load: new orders must succeed while earlier orders still have no known outcome.
            await running
        await load.finish(ANSWER_S)
        first = Counter(order.first for order in load.orders)
        with session.progress.step("wait until every accepted order has an outcome", seconds=KNOWN_S) as step:
            left_s = KNOWN_S - (time.monotonic() - healed)
            within = await load.known_after(max(left_s, 1.0))
            known_s = None if within is None else time.monotonic() - healed
            step.result = load.told()
        never_taken = load.count("none")
        with session.progress.step("retry orders that were not accepted", seconds=AGAIN_S) as step:
            await load.send_again(AGAIN_S)
            await load.at_rest(AGAIN_S)
            step.result = load.told()
        with session.progress.step("compare lists and balances with the requests") as step:
            await load.compare()
            report = await asyncio.to_thread(service.verified)
            step.result = "equal" if not load.found.counts else f"DIFFERENCES: {load.found.counts}"
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
    """Return the proof of the books. It includes the differences that the load generator found."""
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
