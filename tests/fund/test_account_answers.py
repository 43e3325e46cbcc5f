"""Answers of the account service and failures of the network: each gives an order one outcome. `posted` and `refused`
are certain, `unknown` is retried, and `stuck` waits for an operator.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from fundledger.app.account.answers.problems import REFUSALS
from fundledger.app.http.openapi.problems import OTHERS
from fundledger.app.http.problems import POSTING
from fundledger.client.account_service import AccountService
from fundledger.fund import account_gateway
from fundledger.fund.account_gateway import FINAL, UNRECORDED, AccountGateway, GatewayFault, Unverified
from fundledger.fund.model.order import Kind, Order, State
from fundledger.ledger.model.refusal import FINAL as FINAL_IN_LEDGER
from tests.client.stub import CUT, NOTHING, Say, Stub, problem
from tests.support.fund_world import an_order
from tests.support.running import free_port

PAYMENT = an_order(Kind.PAYMENT, "p", 1000, State.POSTING, fee=6)
REVERSAL = an_order(Kind.REVERSAL, "r", 1000, State.POSTING, of_order=PAYMENT.id, channel=None)
ORDERS = pytest.mark.parametrize("order", [PAYMENT, REVERSAL], ids=["payment", "reversal"])
TYPED = {"Content-Type": "application/problem+json"}
NO_PROBLEM, NO_STATUS = Say(400, b"no"), {"type": "urn:fundledger:problem:of-a-newer-release"}


def record(order: Order, status: str) -> dict[str, Any]:
    members = {"id": str(order.voucher_id), "type": "pay", "status": status, "accounting_date": "2026-01-31"}
    return members | {"entries": [], "posted_at": datetime(2026, 1, 31, tzinfo=UTC).isoformat()}


def item(order: Order, status: str, **members: Any) -> Say:
    """Return the answer to a batch of one voucher."""
    return Say(200, {"results": [{"id": str(order.voucher_id), "status": status, **members}]})


def posted(order: Order) -> Say:
    return Say(201, record(order, "posted")) if order is REVERSAL else item(order, "posted")


def refused(order: Order, code: str, status: int) -> Say:
    """Return the answer of the account service that refuses one voucher: an item of a batch, or the whole answer to a
    reversal.
    """
    say = problem(status, code)
    return say if order is REVERSAL else item(order, "refused", problem=say.body)


async def outcome(gateway: AccountGateway, order: Order) -> str:
    try:
        (result,) = await gateway.post([order])
    except GatewayFault:
        return "unknown"
    if result is None:
        return "unknown"
    return "stuck" if result.stuck else "posted" if result.problem is None else "refused"


@asynccontextmanager
async def answering(*says: Say | None, timeout_s: float = 30) -> AsyncIterator[AccountGateway]:
    async with Stub(*says) as stub, AccountService(stub.url, "t", timeout_s) as accounts:
        yield AccountGateway(accounts)


ANSWERS: dict[str, tuple[Say | None, str]] = {
    "the connection is cut": (CUT, "unknown"),
    "the connection is cut in the head": (Say(bytes_max=20), "unknown"),
    "the connection is cut in the body": (Say(body=b"{" + b" " * 999, bytes_max=200), "unknown"),
    "no answer in time": (NOTHING, "unknown"),
    "200 that is not JSON": (Say(200, b"<html>"), "unknown"),
    "200 without results": (Say(200, {}), "unknown"),
    "200 for another voucher": (Say(200, {"results": [{"id": str(PAYMENT.id), "status": "posted"}]}), "unknown"),
    "200 with another status": (item(PAYMENT, "accepted"), "unknown"),
    "302": (Say(302, b"", {"Location": "/"}), "unknown"),
    "400 without a problem": (NO_PROBLEM, "unknown"),
    "400 with a problem without a status": (Say(400, NO_STATUS, TYPED), "stuck"),
    "403 role-missing": (problem(403, "role-missing"), "unknown"),
    "401 without a problem": (Say(401, b""), "unknown"),
    "403 forbidden": (problem(403, "forbidden"), "unknown"),
    "404 without a problem": (Say(404, b"nothing here"), "unknown"),
    "408 without a problem": (Say(408, b""), "unknown"),
    "409 account-exists": (problem(409, "account-exists"), "stuck"),
    "429 without a problem": (Say(429, b""), "unknown"),
    "500 without a problem": (Say(500, b""), "unknown"),
    "502": (Say(502, b"<html>"), "unknown"),
    "503 without a problem": (Say(503, b"<html>"), "unknown"),
    "504": (Say(504, b""), "unknown"),
    "599": (Say(599, b""), "unknown"),
    "not HTTP": (Say(99999), "unknown"),
    # Problems that end a request before its vouchers are decided.
    "400 malformed": (problem(400, "malformed"), "stuck"),
    "400 currency-unknown": (problem(400, "currency-unknown"), "stuck"),
    "401 unauthorized": (problem(401, "unauthorized"), "unknown"),
    "404 not-found": (problem(404, "not-found"), "stuck"),
    "405 method-not-allowed": (problem(405, "method-not-allowed"), "stuck"),
    "408 body-too-late": (problem(408, "body-too-late"), "unknown"),
    "413 body-too-large": (problem(413, "body-too-large"), "stuck"),
    "415 unsupported-media-type": (problem(415, "unsupported-media-type"), "stuck"),
    "429 quota-exceeded": (problem(429, "quota-exceeded"), "unknown"),
    "500 internal-error": (problem(500, "internal-error"), "unknown"),
    "500 integrity": (problem(500, "integrity"), "unknown"),
    "503 temporary-reduced-capacity": (problem(503, "temporary-reduced-capacity"), "unknown"),
    "503 unavailable": (problem(503, "unavailable"), "unknown"),
    "503 outcome-unknown": (problem(503, "outcome-unknown"), "unknown"),
    "503 draining": (problem(503, "draining"), "unknown"),
    "503 no-database": (problem(503, "no-database"), "unknown"),
}


def test_the_table_has_each_problem_of_the_account_service() -> None:
    assert {f"{one.status} {one.name}" for one in OTHERS} <= set(ANSWERS)


@ORDERS
@pytest.mark.parametrize("was_away", [False, True])
@pytest.mark.parametrize(("say", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_to_a_request_gives_one_outcome(
    order: Order, say: Say | None, expected: str, was_away: bool
) -> None:
    async with answering(say, timeout_s=0.2 if say is NOTHING else 30) as gateway:
        gateway.is_away = was_away
        assert await outcome(gateway, order) == expected
        assert gateway.is_away is (expected == "unknown")


@ORDERS
async def test_without_a_connection_the_outcome_is_unknown(order: Order) -> None:
    async with AccountService(f"http://127.0.0.1:{free_port()}", "t") as accounts:
        gateway = AccountGateway(accounts)
        assert await outcome(gateway, order) == "unknown"
        assert gateway.is_away


RECORDED = {
    "account-closed",
    "account-frozen",
    "balance-out-of-range",
    "insufficient-funds",
    "voucher-already-reversed",
}
CODES = [(str(code), REFUSALS[code][0]) for code in REFUSALS if code not in UNRECORDED]


def test_the_refusals_of_orders_are_those_that_are_recorded_for_vouchers_without_a_hold() -> None:
    assert FINAL == RECORDED == set(POSTING)
    assert {code for code in FINAL_IN_LEDGER if not code.startswith("hold-")} == FINAL


@ORDERS
@pytest.mark.parametrize("was_away", [False, True])
@pytest.mark.parametrize(("code", "status"), [*CODES, ("of-a-newer-release", 422)], ids=str)
async def test_only_a_recorded_refusal_refuses_an_order(order: Order, code: str, status: int, was_away: bool) -> None:
    async with answering(refused(order, code, status)) as gateway:
        gateway.is_away = was_away
        assert await outcome(gateway, order) == ("refused" if code in RECORDED else "stuck")
        assert not gateway.is_away


@ORDERS
async def test_a_posted_voucher_is_posted(order: Order) -> None:
    async with answering(posted(order)) as gateway:
        gateway.is_away = True
        assert await outcome(gateway, order) == "posted"
        assert not gateway.is_away


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, "unknown"),
        ({"problem": NO_STATUS}, "stuck"),
        ({"problem": {"status": 500, "type": "urn:fundledger:problem:internal-error"}}, "unknown"),
        ({"problem": {"status": 503, "type": "urn:fundledger:problem:outcome-unknown"}}, "unknown"),
        ({"problem": {"status": 503, "type": "urn:fundledger:problem:insufficient-funds"}}, "unknown"),
    ],
)
async def test_an_item_of_a_batch_gives_one_outcome(members: dict[str, Any], expected: str) -> None:
    async with answering(item(PAYMENT, "refused", **members)) as gateway:
        assert await outcome(gateway, PAYMENT) == expected
        assert not gateway.is_away


READS: dict[str, tuple[Callable[[Order], Say], str, bool | None]] = {
    # The answer to `GET /v1/vouchers/{id}`, the outcome after `account-frozen`, whether the voucher is posted.
    "refused": (lambda order: Say(200, record(order, "refused")), "refused", False),
    "posted": (lambda order: Say(200, record(order, "posted")), "stuck", True),
    "no voucher": (lambda _: problem(404, "not-found"), "stuck", False),
    "500 integrity": (lambda _: problem(500, "integrity"), "stuck", None),
    "422 account-frozen": (lambda _: problem(422, "account-frozen"), "stuck", None),
}
UNREAD = {
    "cut": CUT,
    "404 without a problem": Say(404, b""),
    "401": problem(401, "unauthorized"),
    "429": problem(429, "quota-exceeded"),
    "500": problem(500, "internal-error"),
    "503": problem(503, "unavailable"),
    "not JSON": Say(200, b"<html>"),
}


@ORDERS
@pytest.mark.parametrize(("read", "expected", "_"), READS.values(), ids=READS)
async def test_a_frozen_account_refuses_an_order_if_the_refusal_is_recorded(
    order: Order, read: Callable[[Order], Say], expected: str, _: bool | None
) -> None:
    async with answering(refused(order, "account-frozen", 422), read(order)) as gateway:
        assert await outcome(gateway, order) == expected


@ORDERS
@pytest.mark.parametrize("read", UNREAD.values(), ids=UNREAD)
async def test_a_frozen_account_leaves_the_outcome_unknown_while_the_record_cannot_be_read(
    order: Order, read: Say
) -> None:
    async with answering(refused(order, "account-frozen", 422), read) as gateway:
        assert await outcome(gateway, order) == "unknown"


@pytest.mark.parametrize("was_away", [False, True])
@pytest.mark.parametrize(("read", "_", "expected"), READS.values(), ids=READS)
async def test_a_voucher_that_cannot_be_read_is_neither_posted_nor_unposted(
    read: Callable[[Order], Say], _: str, expected: bool | None, was_away: bool
) -> None:
    async with answering(read(PAYMENT)) as gateway:
        gateway.is_away = was_away
        assert await gateway.is_posted(PAYMENT) is expected
        differs = await gateway.contradiction(PAYMENT)
        assert differs is not None
        assert gateway.is_away is was_away


@pytest.mark.parametrize("was_away", [False, True])
@pytest.mark.parametrize("read", UNREAD.values(), ids=UNREAD)
async def test_a_read_without_an_answer_says_nothing_about_a_voucher(read: Say, was_away: bool) -> None:
    async with answering(read) as gateway:
        gateway.is_away = was_away
        for reading in (gateway.is_posted, gateway.contradiction):
            with pytest.raises(GatewayFault) as away:
                await reading(PAYMENT)
            assert not isinstance(away.value, Unverified)
        with pytest.raises(GatewayFault):
            await gateway.balances(["a"])
        assert gateway.is_away is was_away


@pytest.mark.parametrize("read", [problem(500, "integrity"), problem(422, "account-frozen")])
async def test_balances_that_cannot_be_read_are_unverified(read: Say) -> None:
    async with answering(read) as gateway:
        with pytest.raises(Unverified):
            await gateway.balances(["a"])


async def test_a_gateway_that_takes_any_refusal_for_a_recorded_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_gateway, "FINAL", FINAL | {"account-not-found"})
    with pytest.raises(AssertionError):
        await test_only_a_recorded_refusal_refuses_an_order(REVERSAL, "account-not-found", 422, False)
