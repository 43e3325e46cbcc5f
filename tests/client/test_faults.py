"""Faults between a client and a service: each is one exception, which states whether a retry is safe."""

import asyncio
import uuid
from typing import Any

import pytest

from fundledger.client import (
    AccountService,
    ContractBroken,
    Fault,
    FundService,
    OutcomeUnknown,
    Payment,
    QuotaExceeded,
    Refused,
    Retries,
    Unauthorized,
    Unavailable,
    Voucher,
    connection,
    credit,
    debit,
)
from fundledger.client.connection import Connection
from tests.client.stub import CUT, NOTHING, Say, Stub, problem
from tests.support.running import RunningService, free_port
from tests.support.waiting import eventually

QUICK = Retries(attempts=3, base_s=0.001, cap_s=0.002)
VOUCHER = Voucher(uuid.uuid4(), "pay", [debit("a", 1), credit("b", 1)])
POSTED = Say(
    201,
    {
        "id": str(VOUCHER.id),
        "type": "pay",
        "status": "posted",
        "posted_at": "2026-01-31T12:00:00.000000Z",
        "accounting_date": "2026-01-31",
        "entries": [],
        "reference": None,
        "of_a_newer_server": [1],
    },
)
UNAVAILABLE = problem(503, "unavailable", Retry_After="0")
OVERLOADED = problem(503, "temporary-reduced-capacity", Retry_After="2")


def posted(*vouchers: Voucher) -> Say:
    return Say(200, {"results": [{"id": str(voucher.id), "status": "posted"} for voucher in vouchers]})


FAULTS: list[tuple[str, Say | None, type[Exception], type[Exception], float | None]] = [
    # the server's action, the fault that a write raises, the fault that a read raises, seconds to wait
    ("cuts before it answers", CUT, OutcomeUnknown, Unavailable, None),
    ("cuts in the head", Say(bytes_max=20), OutcomeUnknown, Unavailable, None),
    ("cuts in the body", Say(body=b"{" + b" " * 999, bytes_max=200), OutcomeUnknown, Unavailable, None),
    ("says nothing", NOTHING, OutcomeUnknown, Unavailable, None),
    ("does not know", problem(503, "outcome-unknown", Retry_After="1"), OutcomeUnknown, Unavailable, 1.0),
    ("did nothing", UNAVAILABLE, Unavailable, Unavailable, 0.0),
    ("got the body too late", problem(408, "body-too-late"), Unavailable, Unavailable, None),
    ("has a proxy that got the body too late", Say(408, b"<html>"), OutcomeUnknown, Unavailable, None),
    ("has too much to do", OVERLOADED, Unavailable, Unavailable, 2.0),
    ("has a proxy that lost the answer", Say(503, b"<html>"), OutcomeUnknown, Unavailable, None),
    ("has a gateway that waited too long", Say(504, b""), OutcomeUnknown, Unavailable, None),
    ("has a bug", problem(500, "internal-error"), OutcomeUnknown, Unavailable, None),
    ("counts requests", problem(429, "quota-exceeded", Retry_After="7"), QuotaExceeded, QuotaExceeded, 7.0),
    ("does not know the caller", problem(401, "unauthorized"), Unauthorized, Unauthorized, None),
    ("does not let him", problem(403, "forbidden"), Unauthorized, Unauthorized, None),
    ("refuses", problem(422, "insufficient-funds"), Refused, Refused, None),
    ("is something else", Say(200, b"<html>"), ContractBroken, ContractBroken, None),
    ("answers something else", Say(200, {"id": 1}), ContractBroken, ContractBroken, None),
    ("sends elsewhere", Say(302, b"", {"Location": "/"}), ContractBroken, ContractBroken, None),
    ("knows no such path", Say(404, b"nothing here"), ContractBroken, ContractBroken, None),
    ("does not speak HTTP", Say(99999), ContractBroken, ContractBroken, None),
]


@pytest.mark.parametrize(
    ("say", "writing", "reading", "retry_after_s"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
async def test_a_fault_has_its_name_when_the_server(
    say: Say | None, writing: type[Exception], reading: type[Exception], retry_after_s: float | None
) -> None:
    async with Stub(say) as stub, AccountService(stub.url, "t", 0.5 if say is NOTHING else 30) as accounts:
        with pytest.raises(writing) as write:
            await accounts.post_voucher(VOUCHER)
        with pytest.raises(reading) as read:
            await accounts.account("a")
        for error in (write.value, read.value):
            assert getattr(error, "retry_after_s", None) == retry_after_s
        assert type(write.value) is writing
        assert type(read.value) is reading


@pytest.mark.parametrize(
    ("fault", "retry_is_safe", "undone"),
    [
        (Unavailable, True, True),
        (QuotaExceeded, True, True),
        (OutcomeUnknown, True, False),
        (Unauthorized, False, True),
        (ContractBroken, False, False),
        (Refused, False, True),
    ],
)
def test_every_fault_says_whether_to_send_it_again(fault: Any, retry_is_safe: bool, undone: bool) -> None:
    assert (fault.retry_is_safe, fault.undone) == (retry_is_safe, undone)


async def test_nothing_was_done_when_no_server_listens() -> None:
    async with AccountService(f"http://127.0.0.1:{free_port()}", "t") as accounts:
        with pytest.raises(Unavailable):
            await accounts.post_voucher(VOUCHER)
        assert not await accounts.is_ready()


async def test_a_call_that_waited_for_a_connection_in_vain_was_not_sent() -> None:
    async with Stub(NOTHING) as stub, AccountService(stub.url, "t", connections=1) as accounts:
        first = asyncio.create_task(accounts.post_voucher(VOUCHER))
        await eventually(lambda: len(stub.asked) == 1, "the request is there")
        with pytest.raises(Unavailable):
            await accounts._to.ask("POST", "/x", b"{}", timeout_s=0.05)
        assert len(stub.asked) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_wrong_token_is_unauthorized(service: RunningService) -> None:
    async with AccountService(service.base_url, "wrong") as accounts:
        with pytest.raises(Unauthorized) as fault:
            await accounts.post_voucher(VOUCHER)
        assert fault.value.problem is not None
        assert fault.value.problem.code == "unauthorized"


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://here", "http://"])
def test_an_invalid_url_is_refused_immediately(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        AccountService(url, "t")


# --- Connections ----------------------------------------------------------------------------------------------------


async def test_connections_are_kept_and_take_one_request_at_a_time() -> None:
    async with Stub(POSTED) as stub, AccountService(stub.url, "t", connections=2) as accounts:
        await asyncio.gather(*(accounts.post_voucher(VOUCHER) for _ in range(20)))
        assert (len(stub.asked), stub.connections) == (20, 2)
        assert stub.asked[0].headers["Authorization"] == "Bearer t"


async def test_a_kept_connection_that_the_service_closes_is_no_fault() -> None:
    async with Stub(POSTED, CUT, POSTED) as stub, AccountService(stub.url, "t", connections=1) as accounts:
        await accounts.post_voucher(VOUCHER)
        await accounts.post_voucher(VOUCHER)
        assert [asked.connection for asked in stub.asked] == [0, 0, 1]
        assert stub.asked[1].body == stub.asked[2].body


async def test_an_idle_connection_that_was_closed_long_ago_is_no_fault() -> None:
    async with Stub(POSTED) as stub, AccountService(stub.url, "t") as accounts:
        await accounts.post_voucher(VOUCHER)
        stub.hang_up()
        await stub.closed.wait()
        await accounts.post_voucher(VOUCHER)


async def test_only_a_kept_connection_is_tried_again_and_only_once() -> None:
    async with Stub(POSTED, CUT) as stub, AccountService(stub.url, "t", connections=1) as accounts:
        await accounts.post_voucher(VOUCHER)
        with pytest.raises(OutcomeUnknown):
            await accounts.post_voucher(VOUCHER)
        assert len(stub.asked) == 3
        with pytest.raises(OutcomeUnknown):
            await accounts.post_voucher(VOUCHER)
        assert len(stub.asked) == 4


async def test_a_cancelled_call_drops_its_connection_and_the_next_one_is_answered() -> None:
    async with Stub(NOTHING, POSTED) as stub, AccountService(stub.url, "t", connections=1) as accounts:
        call = asyncio.create_task(accounts.post_voucher(VOUCHER))
        await eventually(lambda: len(stub.asked) == 1, "the request is there")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await accounts.post_voucher(VOUCHER)).id == VOUCHER.id
        assert [asked.connection for asked in stub.asked] == [0, 1]


async def test_a_client_that_is_closed_fails_the_calls_that_wait() -> None:
    async with Stub(NOTHING) as stub:
        accounts = AccountService(stub.url, "t")
        await accounts.open()
        call = asyncio.create_task(accounts.post_voucher(VOUCHER))
        await eventually(lambda: len(stub.asked) == 1, "the request is there")
        await accounts.close()
        with pytest.raises(OutcomeUnknown):
            await call


async def test_a_body_of_many_megabytes_goes_out_as_it_is() -> None:
    vouchers = [
        Voucher(uuid.uuid4(), "pay", [debit("a", 1), credit("b", 1)], metadata={"x": "y" * 4000}) for _ in range(500)
    ]
    async with Stub(posted(*vouchers)) as stub, AccountService(stub.url, "t") as accounts:
        assert len(await accounts.post_vouchers(vouchers)) == 500
        assert len(stub.asked[0].body) > 1 << 20


# --- Batches --------------------------------------------------------------------------------------------------------


def vouchers_of(count: int, **members: Any) -> list[Voucher]:
    return [Voucher(uuid.uuid4(), "pay", [debit("a", 1), credit("b", 1)], **members) for _ in range(count)]


async def test_more_than_a_batch_goes_in_several() -> None:
    vouchers = vouchers_of(5001)
    says = [posted(*vouchers[:5000]), posted(*vouchers[5000:])]
    async with Stub(*says) as stub, AccountService(stub.url, "t") as accounts:
        results = await accounts.post_vouchers(vouchers)
        assert [result.id for result in results] == [voucher.id for voucher in vouchers]
        assert len(stub.asked) == 2


async def test_a_batch_of_too_many_bytes_goes_in_halves() -> None:
    vouchers = vouchers_of(2500, metadata={"x": "y" * 4000})
    says = [posted(*vouchers[:1250]), posted(*vouchers[1250:])]
    async with Stub(*says) as stub, AccountService(stub.url, "t") as accounts:
        assert len(await accounts.post_vouchers(vouchers)) == 2500
        assert max(len(asked.body) for asked in stub.asked) < 8 << 20


async def test_when_a_later_part_was_not_done_the_outcome_of_all_is_not_known() -> None:
    vouchers = vouchers_of(5001)
    async with Stub(posted(*vouchers[:5000]), UNAVAILABLE) as stub, AccountService(stub.url, "t") as accounts:
        with pytest.raises(OutcomeUnknown):
            await accounts.post_vouchers(vouchers)


async def test_results_of_other_vouchers_break_the_contract() -> None:
    one, two = vouchers_of(2)
    for say in (posted(two, one), posted(one), posted()):
        async with Stub(say) as stub, AccountService(stub.url, "t") as accounts:
            with pytest.raises(ContractBroken):
                await accounts.post_vouchers([one, two])


async def test_results_of_other_payments_break_the_contract() -> None:
    say = Say(200, {"results": [{"order_no": "2", "state": "posted"}]})
    async with Stub(say) as stub, FundService(stub.url, "t") as fund:
        with pytest.raises(ContractBroken):
            await fund.pay_many([Payment("m", "1", 5, "CNY", "c")])


# --- Retries --------------------------------------------------------------------------------------------------------


async def test_without_retries_there_are_none() -> None:
    async with Stub(UNAVAILABLE, POSTED) as stub, AccountService(stub.url, "t") as accounts:
        with pytest.raises(Unavailable):
            await accounts.post_voucher(VOUCHER)
        assert len(stub.asked) == 1


@pytest.mark.parametrize("say", [UNAVAILABLE, CUT, problem(429, "quota-exceeded", Retry_After="0"), Say(502, b"")])
async def test_what_may_be_sent_again_is_sent_again(say: Say) -> None:
    async with Stub(say, say, POSTED) as stub, AccountService(stub.url, "t", retries=QUICK) as accounts:
        assert (await accounts.post_voucher(VOUCHER)).status == "posted"
        assert {asked.body for asked in stub.asked} == {stub.asked[0].body}
        assert len(stub.asked) == 3


async def test_retries_end_with_the_last_fault() -> None:
    async with Stub(UNAVAILABLE) as stub, AccountService(stub.url, "t", retries=QUICK) as accounts:
        with pytest.raises(Unavailable):
            await accounts.post_voucher(VOUCHER)
        assert len(stub.asked) == 3


@pytest.mark.parametrize("last", [UNAVAILABLE, problem(429, "quota-exceeded", Retry_After="0")])
async def test_an_unknown_outcome_stays_unknown_whatever_a_later_attempt_returns(last: Say) -> None:
    async with Stub(CUT, last) as stub, AccountService(stub.url, "t", retries=QUICK) as accounts:
        with pytest.raises(OutcomeUnknown):
            await accounts.post_voucher(VOUCHER)


@pytest.mark.parametrize("say", [problem(422, "insufficient-funds"), problem(401, "unauthorized"), Say(200, b"?")])
async def test_what_an_answer_settles_is_not_sent_again(say: Say) -> None:
    async with Stub(say, POSTED) as stub, AccountService(stub.url, "t", retries=QUICK) as accounts:
        with pytest.raises((Refused, Fault)):
            await accounts.post_voucher(VOUCHER)
        assert len(stub.asked) == 1


async def test_no_retry_waits_past_the_deadline() -> None:
    async with Stub(OVERLOADED, POSTED) as stub, AccountService(stub.url, "t", 1.0, retries=QUICK) as accounts:
        with pytest.raises(Unavailable):
            await accounts.post_voucher(VOUCHER)
        assert len(stub.asked) == 1


def test_a_wait_doubles_up_to_its_cap_and_is_never_shorter_than_the_service_asks() -> None:
    retries = Retries(attempts=9, base_s=0.1, cap_s=1.0, jitter=0.0)
    fault = Unavailable("x")
    assert [retries.wait_s(attempt, fault) for attempt in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert retries.wait_s(10**6, fault) == 1.0
    assert retries.wait_s(0, Unavailable("x", None, 7.0)) == 7.0
    waits = {Retries(jitter=0.5).wait_s(0, fault) for _ in range(50)}
    assert 0.05 <= min(waits) < max(waits) <= 0.1


async def test_a_request_states_how_long_its_caller_waits() -> None:
    async with Stub(Say(200, b"{}")) as stub:
        to = Connection(stub.url, None, timeout_s=2.0)
        await to.open()
        await to.ask("GET", "/x", query={"a": "1+1 :"})
        await to.close()
        assert 1 <= int(stub.asked[0].headers["X-Request-Timeout-Ms"]) <= 2000
        assert stub.asked[0].path == "/x?a=1%2B1+%3A"
        assert "Authorization" not in stub.asked[0].headers


# --- Twins ----------------------------------------------------------------------------------------------------------


async def unnoticed(*_: Any) -> None:
    pass


def of_the_last_attempt_only(fault: Fault, _: bool) -> None:
    raise fault


async def cut_before_an_answer() -> None:
    await test_a_fault_has_its_name_when_the_server(CUT, OutcomeUnknown, Unavailable, None)


async def unknown_then_not_done() -> None:
    await test_an_unknown_outcome_stays_unknown_whatever_a_later_attempt_returns(UNAVAILABLE)


@pytest.mark.parametrize(
    ("guard", "broken", "test"),
    [
        ("_on_sent", unnoticed, cut_before_an_answer),
        ("_on_reused", unnoticed, test_a_kept_connection_that_the_service_closes_is_no_fault),
        ("_give_up", of_the_last_attempt_only, unknown_then_not_done),
    ],
)
async def test_a_client_without_this_guard_is_caught(
    guard: str, broken: Any, test: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, guard, broken)
    with pytest.raises((Fault, pytest.fail.Exception)):
        await test()


# --- Events ---------------------------------------------------------------------------------------------------------


def events(*seqs: int, next_: int | None = None) -> Say:
    return Say(200, {"events": [{"seq": seq, "kind": "pay"} for seq in seqs], "next": next_})


async def test_events_come_page_by_page_each_after_the_last() -> None:
    says = [events(3, 4, next_=4), events(7, next_=9), events(next_=9)]
    async with Stub(*says) as stub, AccountService(stub.url, "t") as accounts:
        found = [event async for event in accounts.events(after=2, limit=2, follow=False)]
        assert [(event.seq, event.id, event["kind"]) for event in found] == [
            (3, "3", "pay"),
            (4, "4", "pay"),
            (7, "7", "pay"),
        ]
        assert [asked.path for asked in stub.asked] == [
            "/v1/events?limit=2&after=2",
            "/v1/events?limit=2&after=4",
            "/v1/events?limit=2&after=9",
        ]


async def test_events_are_waited_for() -> None:
    async with Stub(events(), events(5)) as stub, FundService(stub.url, "t") as fund:
        async for event in fund.events(wait_s=0.01):
            assert event.seq == 5
            break
        assert stub.asked[0].path == "/v1/events?limit=500&wait_s=0.01"
