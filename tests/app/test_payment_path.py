"""The payment path that both services share: each error is answered once, and a batch answers each item."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fundledger.app.account.handlers.vouchers import _fault_of as account_fault_of
from fundledger.app.fund.answers.problems import fault_of as fund_fault_of
from fundledger.app.http.admission.admission import Admission, Owned
from fundledger.app.http.admission.payment_path import Outcomes, PaymentPath, reply_to_batch
from fundledger.app.http.problems import BadRequest, malformed
from fundledger.app.http.wire.reply import NothingDone, Reply
from fundledger.faults import Fault, GuardHit, OutcomeUnknown, Unavailable
from fundledger.fund.model.answer import OrderFault
from fundledger.ledger.model.batch import Outcome
from fundledger.ratelimit.classes import ApiClass

POSTED = Outcome()
FULL = Unavailable("the queue is full")
AWAY = Unavailable("the database does not answer")
TAMPERED = OrderFault("a row does not match its MAC", tampered=True)
CASES: dict[str, tuple[Callable[[Any], Fault | None], list[Any], int, str]] = {
    "posted": (account_fault_of, [POSTED, POSTED], 200, ""),
    "not accepted": (account_fault_of, [FULL, AWAY], 503, "the queue is full;"),
    "partly accepted": (account_fault_of, [POSTED, AWAY], 503, "the request may or may not"),
    "unknown": (account_fault_of, [AWAY, OutcomeUnknown()], 503, "the request may or may not"),
    "guarded": (account_fault_of, [GuardHit("a guard"), POSTED], 200, ""),
    "orders not accepted": (fund_fault_of, [OrderFault("full"), OrderFault("away")], 503, "full;"),
    "orders unknown": (
        fund_fault_of,
        [OrderFault("full"), OrderFault("lost", undone=False)],
        503,
        "the request may or may not",
    ),
    "orders edited": (fund_fault_of, [TAMPERED, TAMPERED], 200, ""),
    "orders edited or not accepted": (fund_fault_of, [TAMPERED, OrderFault("full")], 503, "the request may or may not"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_batch_is_answered_as_a_whole_unless_each_outcome_is_known(case: str) -> None:
    fault_of, outcomes, status, detail = CASES[case]
    shown: list[Any] = []

    def result(item: str, outcome: Any) -> dict[str, Any]:
        shown.append(outcome)
        return {"id": item}

    reply = await reply_to_batch(["a", "b"], outcomes, fault_of, result)
    body = json.loads(reply.body)
    assert reply.status == status
    if status == 200:
        assert (body, shown) == ({"results": [{"id": "a"}, {"id": "b"}]}, outcomes)
    else:
        assert body["detail"].startswith(detail)
        assert not shown, "no item is counted or refunded"
        # Tokens are refunded only if it is certain that no item was done.
        assert (type(reply) is NothingDone) is (body["type"].endswith(":unavailable"))


async def test_outcomes_have_the_order_of_the_items() -> None:
    outcomes: Outcomes[str] = Outcomes(3)
    waiting = asyncio.create_task(outcomes.wait())
    for index, outcome in ((2, "c"), (0, "a"), (1, "b")):
        assert not waiting.done()
        outcomes.answer(index, outcome)
    assert await waiting == ["a", "b", "c"]


class Path(PaymentPath[Any, bytes, Any]):
    """A payment path that raises `error` in the hook `fails_in`."""

    fails_in: str = ""
    error: Exception = FULL
    decode: Callable[[bytes], bytes] = bytes
    to_reply: Callable[[Any, Admission, Any], Reply] = lambda *_: Reply(201, b"{}")
    is_cached: bool = True

    def _hook(self, name: str) -> None:
        if name == self.fails_in:
            raise self.error

    def resolve(self, content: bytes) -> Sequence[Owned] | None:
        self._hook("resolve")
        return () if self.is_cached else None

    async def look_up(self, content: bytes) -> None:
        self._hook("look_up")

    async def is_recorded(self, content: bytes) -> bool:
        self._hook("is_recorded")
        return True

    def queue(self) -> None:
        self._hook("queue")
        self.answered(0, None)


NO_QUOTA = Reply(429, b"")


class Door:
    """A controller that admits, or rejects all that is charged."""

    def __init__(self, no: Reply | None) -> None:
        self._no = no

    def recognise(self, admission: Admission) -> bool:
        return False

    def early_rejection(self, admission: Admission) -> Reply | None:
        return self._no

    def enter(self, admission: Admission, accounts: Sequence[Owned]) -> Reply | None:
        return self._no

    async def charge_caller(self, admission: Admission) -> Reply | None:
        return None

    def enter_uncharged(self, admission: Admission, now: float) -> Reply | None:
        return None


WHERE = {
    "decode": (True, None),
    "resolve": (True, None),
    "queue": (True, None),
    "to_reply": (True, None),
    "look_up": (False, None),
    "queue of a payment that is looked up": (False, None),
    "is_recorded": (True, NO_QUOTA),
    "look_up of a replay": (False, NO_QUOTA),
    "queue of a replay": (True, NO_QUOTA),
}
ERRORS: dict[str, tuple[Exception, int, str]] = {
    "malformed": (malformed("no"), 400, "malformed"),
    "full": (FULL, 503, "unavailable"),
    "bug": (RuntimeError("a bug"), 500, "internal-error"),
}


async def answers_of(
    path_of: Callable[[Any, Admission, Callable[[Reply], None]], Path], no: Reply | None
) -> list[Reply]:
    """Return the answers to one payment, after all work for it has ended."""
    work: list[Coroutine[Any, Any, None]] = []
    service = SimpleNamespace(controller=Door(no), replays=SimpleNamespace(has_room=lambda: True), spawn=work.append)
    answers: list[Reply] = []
    path_of(service, Admission("dev", time.monotonic(), None, ApiClass.PAYMENT), answers.append).post(b"{}")
    for each in work:
        await each
    return answers


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kind", ERRORS)
async def test_an_error_of_any_step_is_answered_once_with_its_problem(where: str, kind: str) -> None:
    is_cached, no = WHERE[where]
    error, status, problem = ERRORS[kind]

    def breaks(*_: object) -> Any:
        raise error

    replaced = {where: breaks} if where in ("decode", "to_reply") else {}
    step = where.partition(" ")[0]
    (reply,) = await answers_of(
        lambda *of: Path(*of, is_cached=is_cached, fails_in=step, error=error, **replaced),  # type: ignore[arg-type]
        no,
    )
    assert (reply.status, json.loads(reply.body)["type"].rpartition(":")[2]) == (status, problem)
    if isinstance(error, BadRequest):
        assert reply is error.reply


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("no", [None, NO_QUOTA], ids=["admitted", "replay"])
async def test_a_payment_is_answered_once(is_cached: bool, no: Reply | None) -> None:
    (reply,) = await answers_of(lambda *of: Path(*of, is_cached=is_cached), no)
    assert reply.status == 201
