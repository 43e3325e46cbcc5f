"""Refund race test: concurrent refunds of one payment, which together exceed the payment."""

from typing import Final

from benchmarks.closed_loop import closed_loop
from benchmarks.figures import Figure, Floor
from benchmarks.fund_service import FundService
from benchmarks.fund_traffic import creating, fresh_run
from benchmarks.runs import BenchFault
from benchmarks.session import Page, Session
from benchmarks.traffic import post
from benchmarks.whole import start_fund_service
from benchmarks.wire import Wire

NAME: Final = "refund-race"
ROUNDS = 1000
AT_ONCE: Final = 100
AMOUNT: Final = 1000
PARTS: Final = (7, 13, 30, 77, 250)
"""Refund amounts. Each round uses one amount, in turn. The payment covers most refunds of the smallest amount, but only
a few refunds of the largest amount.
"""
ANSWER_S: Final = 60.0


def refund_race(session: Session) -> None:
    """Run the refund race test. Raises BenchFault."""
    with start_fund_service(session, NAME, 1, {"FUND_WORKERS": "2"}) as service:
        run = closed_loop(service.fund_port, creating(service.token, 1), 1)
        if run.errors:
            raise BenchFault("the merchant could not be created")
        asked, above, short, others = _rounds(session, service)
        with session.progress.step("prove the books") as step:
            proof = session.proofs[NAME] = service.prove_orders(asked, 0)
            step.result = "ok" if proof.ok else f"FAILED: {proof.why}"
    none = Floor(0, at_most=True)
    session.figures += [
        Figure(f"{NAME}: payments of which more was refunded than was paid", above, "", none),
        Figure(f"{NAME}: payments of which less was refunded than fitted in", short, "", none),
        Figure(f"{NAME}: answers that are neither a refund nor its refusal", sum(others.values()), "", none),
    ]
    text = f"{NAME}: {ROUNDS:,} payments, {AT_ONCE} concurrent refunds of each; {asked - ROUNDS:,} were posted"
    members = {"rounds": ROUNDS, "at_once": AT_ONCE, "orders": asked, "above": above, "short": short, "others": others}
    session.pages.append(Page(NAME, text, members))


def _rounds(session: Session, service: FundService) -> tuple[int, int, int, dict[str, int]]:
    """Return `(number of posted orders, number of payments refunded by too much, number of payments refunded by too
    little, counts of unexpected responses)`.
    """
    asked = above = short = 0
    others: dict[str, int] = {}
    prefix = fresh_run()
    with (
        session.progress.step(f"{AT_ONCE} concurrent refunds", total=ROUNDS) as step,
        Wire(service.fund_port) as wire,
    ):
        for number in range(ROUNDS):
            paid = f"{prefix}-{number}"
            members = f'"merchant":"b1","order_no":"{paid}","amount":{AMOUNT},"currency":"CNY","channel":"simulator"'
            status, answer = _all(wire, [post("/v1/payments", f"{{{members}}}", service.token)])[0]
            if status != 201:
                raise BenchFault(f"a payment was answered {status} {answer[-300:]!r}")
            part = PARTS[number % len(PARTS)]
            bodies = [
                f'{{"merchant":"b1","order_no":"{paid}-{i}","payment_order_no":"{paid}","amount":{part}}}'
                for i in range(AT_ONCE)
            ]
            answers = _all(wire, [post("/v1/refunds", body, service.token) for body in bodies])
            done = sum(status == 201 for status, _ in answers)
            for status, answer in answers:
                if status != 201 and not (status == 422 and b"refund-exceeds-payment" in answer):
                    others[str(status)] = others.get(str(status), 0) + 1
            fit = min(AT_ONCE, AMOUNT // part)
            above += done > fit
            short += done < fit
            asked += 1 + done
            step.advance()
        step.result = f"{above} above the payment, {short} below the possible sum"
    return asked, above, short, others


def _all(wire: Wire, requests: list[bytes]) -> list[tuple[int, bytes]]:
    """Send each request on its own connection, then read the responses. Raises BenchFault."""
    for request in requests:
        wire.send(wire.connect(), request, 1)
    answers: list[tuple[int, bytes]] = []
    while len(answers) < len(requests):
        got = wire.answers(ANSWER_S)
        if not got:
            raise BenchFault(f"no response for {ANSWER_S:.0f} s")
        for connection, status in got:
            connection.sent_ns = None
            answers.append((status, connection.answer))
            wire.drop(connection)
    return answers
