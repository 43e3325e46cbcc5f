"""End-to-end benchmark of a payment, from the front end through the fund service and the account service to both
databases.
"""

from typing import Final

from benchmarks.closed_loop import closed_loop
from benchmarks.figures import Floor, median_figure
from benchmarks.fund_service import FundService
from benchmarks.fund_traffic import creating, payments
from benchmarks.runs import BenchFault, Run
from benchmarks.session import Contender, Session
from benchmarks.single_connection import single_connection

NAME: Final = "whole way"
CONNECTIONS: Final = 128
MERCHANTS = 1000
HOT: Final = 4
LIGHT_S: Final = 2.0
FUND, ACCOUNT = "payment", "voucher"
RATE_FLOOR: Final = Floor(5000)
TAIL_FLOOR: Final = Floor(5, at_most=True)
LIGHT_FLOOR: Final = Floor(3, at_most=True)


class Orders:
    """Counts of the orders that the drivers sent, for the proof of the books."""

    def __init__(self) -> None:
        self.asked = 0
        self.in_flight_max = 0

    def count(self, run: Run) -> Run:
        self.asked += run.answered - run.errors
        self.in_flight_max += run.in_flight_max
        return run


def whole(session: Session) -> None:
    """Run the end-to-end benchmark. Raises BenchFault."""
    with start_fund_service(session, NAME, 1) as service:
        create_merchants(session, service, MERCHANTS)
        orders = Orders()
        _peak(session, service, orders)
        _light(session, service, orders)
        with session.progress.step(f"prove the books of the {NAME}") as step:
            proof = session.proofs[NAME] = service.prove_orders(orders.asked, orders.in_flight_max)
            step.result = f"{proof.vouchers:,} orders, ok" if proof.ok else f"FAILED: {proof.why}"


def start_fund_service(
    session: Session,
    name: str,
    workers: int,
    settings: dict[str, str] | None = None,
    port: int | None = None,
    account_url: str = "",
) -> FundService:
    """Start both services. The caller uses the returned object as a context manager, which stops both. Raises
    BenchFault.
    """
    with session.progress.step(f"start both services: {name}") as step:
        given = {**(settings or {}), **session.plan.settings}
        folder = session.root / name.replace(" ", "-")
        service = FundService(folder, workers, given, port=port, account_url=account_url)
        step.result = f"ready in {service.fresh_start_s:.1f} s with new databases"
    session.started(service)
    return service


def create_merchants(session: Session, service: FundService, count: int) -> None:
    """Create the merchants 1 to `count`. Raises BenchFault."""
    with session.progress.step(f"create {count:,} merchants", total=count) as step:
        run = closed_loop(service.fund_port, step.watch(creating(service.token, count)), min(16, count))
    if run.errors:
        raise BenchFault(f"{run.errors} of {run.answered} merchants could not be created")


def _peak(session: Session, service: FundService, orders: Orders) -> None:
    scenario = f"{NAME}: payments, 1 of {HOT} to one of {MERCHANTS:,} merchants, {CONNECTIONS} connections"
    traffic = payments(service.fund_port, service.token, MERCHANTS, HOT)
    contender = session.contender(FUND, traffic, CONNECTIONS, lambda run: service.judge(orders.count(run)))
    runs = session.alternate(scenario, [contender], service.dsn)[FUND]
    tails = [run.p99_ms / run.p50_ms for run in runs if run.p50_ms]
    session.figures += [
        median_figure(f"{NAME}: payments", [run.rate for run in runs], "/s", RATE_FLOOR, runs),
        median_figure(f"{NAME}: p99 / p50 at that load", tails, "x", TAIL_FLOOR, runs),
    ]


def _light(session: Session, service: FundService, orders: Orders) -> None:
    """Compare the latency of a payment with the latency of a voucher at the account service. A single caller sends one
    request at a time.
    """
    session.open_accounts(service, 1)
    seconds = min(LIGHT_S, session.plan.seconds)
    ours, theirs = payments(service.fund_port, service.token, MERCHANTS, HOT), service.traffic(1)

    def pay(seconds_: float) -> Run:
        run = single_connection(service.fund_port, ours.requests(), seconds_)
        return service.judge(orders.count(run))

    def post(seconds_: float) -> Run:
        return service.count(single_connection(service.port, theirs.requests(), seconds_))

    scenario = f"{NAME}: single connection"
    runs = session.alternate(scenario, [Contender(FUND, pay, seconds), Contender(ACCOUNT, post, seconds)])
    pairs = zip(runs[FUND], runs[ACCOUNT], strict=True)
    ratios = [of.p50_ms / by.p50_ms for of, by in pairs if by.p50_ms]
    name = f"{NAME}: single connection, p50 of a payment / of a voucher"
    session.figures.append(median_figure(name, ratios, "x", LIGHT_FLOOR, [*runs[FUND], *runs[ACCOUNT]]))
