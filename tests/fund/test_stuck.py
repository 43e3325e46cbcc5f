"""Stuck orders: an order that no automatic retry can complete has a reason, is logged once, and continues when a person
retries it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest

from fundledger.client.faults import OutcomeUnknown, Problem, Refused, Unavailable
from fundledger.client.types import Voucher, VoucherRecord, VoucherResult
from fundledger.fund import account_gateway as gateway
from fundledger.fund import ending as ends
from fundledger.fund.channels.channel import ChannelAway, Standing
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.person import may_approve
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.events import fund_feed
from fundledger.fund.store.mac_layouts import PAYOUT, payout_fields
from fundledger.fund.store.orders import read_order
from tests.fund.bank import Scripted
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

URN = "urn:fundledger:problem:"


class Answers:
    """The account service, except that vouchers with some ids are answered by a problem and are not posted."""

    def __init__(self, worker: FundWorker) -> None:
        self._post = worker.accounts.post_vouchers
        self.problems: dict[UUID, tuple[str, int]] = {}
        self.every: tuple[str, int] | None = None
        self.calls = 0

    async def __call__(self, vouchers: Sequence[Voucher]) -> list[VoucherResult]:
        self.calls += 1
        wanted = {v.id: self.problems.get(v.id, self.every) for v in vouchers}
        real = [v for v in vouchers if wanted[v.id] is None]
        posted = {result.id: result for result in (await self._post(real) if real else [])}
        return [posted.get(v.id) or refusal(v.id, *wanted[v.id]) for v in vouchers]  # type: ignore[misc]


def refusal(id_: UUID, code: str, status: int) -> VoucherResult:
    return VoucherResult(id_, "refused", Problem({"type": URN + code, "status": status, "title": "t", "detail": "d"}))


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    async with FundWorker(fund_database, service.base_url, service.fund_token, wait_s=3.0) as worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


@pytest.fixture
def answers(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers(worker)
    monkeypatch.setattr(worker.accounts, "post_vouchers", answers)
    return answers


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "event", "") == event]


async def state(worker: FundWorker, order: Order) -> str:
    return await worker.value("SELECT state FROM fund.orders WHERE id = $1", order.id)


async def history(worker: FundWorker, order: Order) -> list[str]:
    rows = await worker.pool.fetch("SELECT state FROM fund.events WHERE order_id = $1 ORDER BY seq", order.id)
    return [row["state"] for row in rows]


async def stays_posting(worker: FundWorker, answers: Answers, status: int) -> None:
    merchant = await worker.merchant(withdrawal_limit=100)
    await worker.pay(merchant, "p", 100)
    answers.every = ("outcome-unknown", status)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=60, channel=f"c-{worker.salt}")
    await worker.recoverer.recover_some()
    assert await state(worker, order) == "posting"
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == 60
    answers.every = None
    await worker.recoverer.recover_some()
    assert await state(worker, order) == "posted"
    assert await worker.of(merchant) == (40, 0, 0)


@pytest.mark.parametrize("status", [500, 503, 599])
async def test_a_fault_of_one_item_of_a_batch_is_no_refusal(worker: FundWorker, answers: Answers, status: int) -> None:
    await stays_posting(worker, answers, status)


async def test_one_that_takes_a_fault_for_a_refusal_is_noticed(
    worker: FundWorker, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_FAULT_FROM", 1000)
    with pytest.raises(AssertionError):
        await stays_posting(worker, answers, 503)


async def test_an_order_whose_voucher_has_other_content_is_stuck_logged_once_and_goes_on_when_asked(
    worker: FundWorker, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    answers.every = ("voucher-id-reused", 422)
    with caplog.at_level(logging.DEBUG):
        order = await worker.pay(merchant, "q", 5)
        assert order.state is State.STUCK
        assert b"voucher-id-reused" in (order.problem or b"")
        calls = answers.calls
        for _ in range(3):
            await worker.recoverer.recover_some()
        assert answers.calls == calls
        assert len(logged(caplog, "order_stuck")) == 1
        retried = await worker.batcher.retry(order.id, "person")
        assert isinstance(retried, Taken)
        assert retried.order.state is State.STUCK
        assert len(logged(caplog, "order_stuck")) == 2
    repeat = await worker.pay(merchant, "q", 5)
    assert (repeat.id, repeat.state) == (order.id, State.STUCK)
    answers.every = None
    retried = await worker.batcher.retry(order.id, "person", "cleared")
    assert isinstance(retried, Taken)
    assert (retried.replay, retried.order.state) == (False, State.POSTED)
    assert await worker.of(merchant) == (105, 0, 0)
    again = await worker.batcher.retry(order.id, "person")
    assert isinstance(again, Taken)
    assert (again.replay, again.order.state) == (True, State.POSTED)
    assert await history(worker, order) == ["stuck", "posting", "stuck", "posting", "posted"]
    stuck = await read_order(worker.pool, order.id)
    assert stuck is not None
    assert (stuck.problem, stuck.stuck_from) == (None, None)


async def test_a_voucher_that_the_account_service_does_not_take_is_stuck_and_holds_up_no_other(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account service answers 400 for the whole batch, because one item is not a valid voucher."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    real = gateway.voucher_of

    def voucher_of(order: Order) -> Voucher:
        voucher = real(order)
        return Voucher(voucher.id, "NO TYPE", voucher.entries) if order.order_no == "bad" else voucher

    with monkeypatch.context() as broken:
        broken.setattr(gateway, "voucher_of", voucher_of)
        done = await asyncio.gather(*(worker.pay(merchant, number, 5) for number in ("1", "2", "bad", "3")))
    assert [order.state for order in done] == [State.POSTED, State.POSTED, State.STUCK, State.POSTED]
    retried = await worker.batcher.retry(done[2].id, "person")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.POSTED


@pytest.mark.parametrize("error", [AssertionError("no channel"), KeyError("kind"), TypeError("None + 1")])
async def test_an_order_without_a_voucher_is_stuck_and_holds_up_no_other(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    ending = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    real = gateway.voucher_of

    def voucher_of(order: Order) -> Voucher:
        if order.order_no == "bad":
            raise error
        return real(order)

    def end_voucher_of(order: Order, end: Any) -> Voucher:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(gateway, "voucher_of", voucher_of)
        broken.setattr(ends, "end_voucher_of", end_voucher_of)
        done = await asyncio.gather(*(worker.pay(merchant, number, 5) for number in ("1", "bad", "3")))
        assert isinstance(await worker.batcher.end(ending.id, "paid", None, None, "m"), Taken)
        await worker.recoverer.recover_some()
    assert [order.state for order in done] == [State.POSTED, State.STUCK, State.POSTED]
    assert [await state(worker, order) for order in (done[1], ending)] == ["stuck", "stuck"]
    for order, then in ((done[1], State.POSTED), (ending, State.PAID)):
        retried = await worker.batcher.retry(order.id, "person")
        assert isinstance(retried, Taken)
        assert retried.order.state is then


@pytest.mark.parametrize("code", ["voucher-id-reused", "account-not-found"])
@pytest.mark.parametrize("ending", ["paid", "bounced"])
async def test_an_end_that_cannot_be_posted_is_stuck_and_goes_on_when_asked(
    worker: FundWorker, answers: Answers, caplog: pytest.LogCaptureFixture, ending: Any, code: str
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    answers.every = (code, 422)
    ended = await worker.batcher.end(order.id, ending, "ref", None, "m")
    assert isinstance(ended, Taken)
    assert ended.order.state is State.STUCK
    calls = answers.calls
    for _ in range(3):
        await worker.recoverer.recover_some()
    assert answers.calls == calls
    assert len(logged(caplog, "order_stuck")) == 1
    contrary = await worker.batcher.end(order.id, "bounced" if ending == "paid" else "paid", None, None, "m")
    assert isinstance(contrary, Refusal)
    answers.every = None
    retried = await worker.batcher.retry(order.id, "person")
    assert isinstance(retried, Taken)
    assert retried.order.state == ending
    assert await history(worker, order) == ["posted", "stuck", "posted", ending]


@pytest.mark.parametrize("step", ["payment", "end"])
async def test_callers_that_retry_an_order_concurrently_post_it_once(
    worker: FundWorker, answers: Answers, service: RunningService, step: str
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    answers.every = ("voucher-id-reused", 422)
    if step == "end":
        await worker.batcher.end(order.id, "bounced", None, "no such account", "m")
    else:
        order = await worker.pay(merchant, "q", 50)
    assert await state(worker, order) == "stuck"
    answers.every = None
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        callers = (one.batcher.retry(order.id, f"person{n}") for n in range(8) for one in (worker, other))
        retried = await asyncio.gather(*callers)
    assert all(isinstance(answer, Taken) for answer in retried), retried
    assert await worker.of(merchant) == (50, 0, 0)
    states = await history(worker, order)
    expected = ["stuck", "posting", "posted"] if step == "payment" else ["posted", "stuck", "posted", "bounced"]
    assert states == expected


async def due_now(worker: FundWorker, order: Order) -> None:
    await worker.value(
        "UPDATE fund.orders SET due_at = clock_timestamp() WHERE id = $1 AND due_at IS NOT NULL", order.id
    )
    await worker.recoverer.recover_some()


async def test_an_end_whose_refusal_is_not_recorded_is_not_tried_under_another_id(
    worker: FundWorker, answers: Answers
) -> None:
    """The voucher of the end is posted, but the answer was lost and the record does not match its MAC any more.

    Posting the end with another id would post it twice.
    """
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    answers.every = ("outcome-unknown", 503)
    await worker.batcher.end(order.id, "bounced", None, "no such account", "m")
    begun = await read_order(worker.pool, order.id)
    assert begun is not None
    end = gateway.end_voucher_of(begun, "bounced")
    answers.every = None
    await answers([end])
    answers.problems[end.id] = ("account-frozen", 422)
    for _ in range(2):
        await due_now(worker, order)
    assert await worker.of(merchant) == (50, 0, 0)
    assert await state(worker, order) == "stuck"
    answers.problems.clear()
    retried = await worker.batcher.retry(order.id, "person", "the record was restored")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.BOUNCED
    assert await worker.of(merchant) == (50, 0, 0)


async def test_an_order_whose_refusal_is_not_recorded_is_not_refused(worker: FundWorker, answers: Answers) -> None:
    merchant = await worker.merchant(withdrawal_limit=100)
    await worker.pay(merchant, "p", 100)
    answers.every = ("outcome-unknown", 503)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=60, channel=f"c-{worker.salt}")
    answers.every = None
    await answers([gateway.voucher_of(order)])
    answers.problems[order.voucher_id] = ("account-frozen", 422)
    await due_now(worker, order)
    assert await state(worker, order) == "stuck"
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == 60
    answers.problems.clear()
    retried = await worker.batcher.retry(order.id, "person")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.POSTED
    assert await worker.of(merchant) == (40, 0, 0)


async def test_while_the_record_of_a_refusal_cannot_be_read_an_order_is_posting(
    worker: FundWorker, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.accounts.freeze(f"merchant:{merchant}:available", "fraud?", "all")

    async def away(_: UUID) -> None:
        raise Unavailable("cut")

    with monkeypatch.context() as cut:
        cut.setattr(worker.accounts, "voucher", away)
        order = await worker.pay(merchant, "p", 100)
        assert order.state is State.POSTING
    await due_now(worker, order)
    assert await state(worker, order) == "parked"


async def test_the_end_of_a_frozen_merchant_is_logged_once_and_tried_ever_later(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    await worker.accounts.freeze(f"merchant:{merchant}:available", "fraud?", "all")
    pauses = []
    due_in = "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM fund.orders WHERE id = $1"
    await worker.batcher.end(order.id, "bounced", None, "no such account", "m")
    for _ in range(9):
        pauses.append(await worker.value(due_in, order.id))
        await worker.value("UPDATE fund.orders SET due_at = clock_timestamp() WHERE id = $1", order.id)
        await worker.recoverer.recover_some()
    rounded = [min(3600, 30 * 2**n) for n in range(9)]
    assert [abs(pause - wanted) < 20 for pause, wanted in zip(pauses, rounded, strict=True)] == [True] * 9, pauses
    assert len(logged(caplog, "end_refused")) == 1
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    retried = await worker.batcher.retry(order.id, "person")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.BOUNCED


async def test_events_of_what_was_retried_have_ids_of_their_own(worker: FundWorker, answers: Answers) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    answers.every = ("voucher-id-reused", 422)
    order = await worker.pay(merchant, "q", 5)
    await worker.batcher.retry(order.id, "person")
    answers.every = None
    await worker.batcher.retry(order.id, "person")
    feed = fund_feed(worker.dsn, worker.pool, worker.macs, "test")
    try:
        events, *_ = await feed.read(0, 100, 0)
    finally:
        await feed.close()
    told = [event for event in events if event.id.startswith(str(order.id))]
    assert [event.type.partition(".")[2] for event in told] == ["stuck", "posting", "stuck", "posting", "posted"]
    assert len({event.id for event in told}) == 5


# --- A payout is what the ledger posted -----------------------------------------------------------------------------

AT_ONCE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)


@pytest.mark.parametrize(
    "edit",
    [
        "amount = 1000000",
        "amount = amount - 1, fee = fee + 1",
        "currency = 'USD'",
        "voucher_id = gen_random_uuid()",
    ],
)
async def test_a_withdrawal_that_differs_from_its_voucher_is_not_paid_out(
    worker: FundWorker, edit: str, caplog: pytest.LogCaptureFixture
) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    right = await worker.done("withdrawal", merchant=merchant, order_no="right", amount=7, channel=channel)
    before = await worker.pool.fetchrow("SELECT * FROM fund.orders WHERE id = $1", order.id)
    await worker.value(f"UPDATE fund.orders SET {edit} WHERE id = $1", order.id)
    bank = Scripted(Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, AT_ONCE)
    for _ in range(3):
        await paying.pay_out_some()
    assert bank.refs == [str(right.id)]
    assert await state(worker, order) == "stuck"
    assert await state(worker, right) == "paid"
    assert await worker.value("SELECT array_agg(says) FROM fund.channel_findings WHERE order_id = $1", order.id) == [
        "voucher"
    ]
    assert len(logged(caplog, "order_stuck")) == 1
    # After the order is restored and retried, it is paid out as it was posted.
    back = "UPDATE fund.orders SET amount = $2, fee = $3, currency = $4, voucher_id = $5 WHERE id = $1"
    names = ("amount", "fee", "currency", "voucher_id")
    await worker.pool.execute(back, order.id, *(before[name] for name in names))
    await worker.batcher.retry(order.id, "person")
    bank.said.append(Standing.PAID)
    await paying.pay_out_some()
    assert bank.refs == [str(right.id), str(order.id)]
    assert await state(worker, order) == "paid"


async def test_a_payout_that_differs_is_not_sent_again_either(worker: FundWorker) -> None:
    """The channel did not receive the payout, and the amount of its row was changed afterwards.

    While the order is stuck, the payout stays open.
    """
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    bank = Scripted(ChannelAway("nobody there"), Standing.ABSENT, Standing.ABSENT)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, AT_ONCE)
    await paying.pay_out_some()
    await worker.value("UPDATE fund.payouts SET amount = 400 WHERE order_id = $1", order.id)
    await paying.pay_out_some()
    assert bank.asked == ["pay_out"]
    assert await state(worker, order) == "stuck"
    await worker.value("UPDATE fund.payouts SET amount = 100 WHERE order_id = $1", order.id)
    await paying.pay_out_some()
    assert bank.asked == ["pay_out", "query"]
    await worker.batcher.retry(order.id, "person")
    bank.said.append(Standing.PAID)
    await paying.pay_out_some()
    assert bank.asked == ["pay_out", "query", "query", "pay_out"]
    assert await state(worker, order) == "paid"


async def test_while_the_voucher_cannot_be_read_nothing_is_sent(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    bank = Scripted(Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, AT_ONCE)

    async def away(_: Order) -> None:
        raise gateway.GatewayFault("cut")

    with monkeypatch.context() as broken:
        broken.setattr(worker.gateway, "contradiction", away)
        await paying.pay_out_some()
    assert (bank.refs, await state(worker, order)) == ([], "posted")
    await paying.pay_out_some()
    assert await state(worker, order) == "paid"


@pytest.mark.parametrize(
    "fault",
    [
        OutcomeUnknown("HTTP 500", Problem({"type": URN + "integrity", "status": 500})),
        Refused(Problem({"type": URN + "account-frozen", "status": 422})),
    ],
)
async def test_a_withdrawal_whose_voucher_does_not_verify_holds_up_no_other(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    right = await worker.done("withdrawal", merchant=merchant, order_no="right", amount=7, channel=channel)
    bank = Scripted(Standing.PAID, Standing.PAID)
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, msgspec.structs.replace(AT_ONCE, at_once=1))
    real = worker.accounts.voucher

    async def edited(id_: UUID) -> VoucherRecord | None:
        if id_ == order.voucher_id:
            raise fault
        return await real(id_)

    with monkeypatch.context() as broken:
        broken.setattr(worker.accounts, "voucher", edited)
        for _ in range(2):
            await paying.pay_out_some()
    assert bank.refs == [str(right.id)]
    assert (await state(worker, order), await state(worker, right)) == ("stuck", "paid")
    await worker.batcher.retry(order.id, "person", "the row was restored")
    await paying.pay_out_some()
    assert await state(worker, order) == "paid"


async def test_one_that_does_not_compare_pays_out_what_was_edited(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the tests above: the payout is not compared with the ledger."""

    async def agrees(_: Order) -> None:
        return None

    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    await worker.value("UPDATE fund.orders SET amount = 101 WHERE id = $1", order.id)
    bank = Scripted(Standing.ACCEPTED)
    with monkeypatch.context() as broken:
        broken.setattr(worker.batcher, "contradiction", agrees)
        await Payouts(worker.pool, worker.batcher, {channel: bank}, AT_ONCE).pay_out_some()
    assert bank.refs == [str(order.id)]
    await worker.value("UPDATE fund.orders SET amount = 100 WHERE id = $1", order.id)
    restored = await read_order(worker.pool, order.id)
    assert restored is not None
    worker.macs.seal(restored)
    await worker.value("UPDATE fund.orders SET mac = $2 WHERE id = $1", order.id, restored.mac)
    payout = await worker.pool.fetchrow("SELECT * FROM fund.payouts WHERE order_id = $1", order.id)
    assert payout["amount"] == 101, "`verify` would find it"
    _, mac = worker.macs.rows.tag(PAYOUT, payout_fields({**payout, "amount": 100}))
    await worker.value("UPDATE fund.payouts SET amount = 100, mac = $2 WHERE order_id = $1", order.id, mac)


# --- Two persons ----------------------------------------------------------------------------------------------------

PERSONS = [
    ("dev", "ops", True),
    ("dev/alice", "ops/alice", True),
    ("dev", "person:dev", True),
    ("person:alice", "person:bob", True),
    ("dev/alice", "dev/bob", False),
    ("dev/alice", "dev", False),
    ("dev", "dev/ ", False),
    ("dev", "dev", False),
    ("dev", "Dev", False),
    ("person:alice", "person:alice/bob", False),
    ("person:alice", "person:Alice", False),
    ("person:alice", "person:alice ", False),
    ("person:alice", "person:\uff41lice", False),
    ("person:Stra\u00dfe", "person:STRASSE", False),
    ("person:e\u0301ve", "person:\u00e9ve", False),
]


@pytest.mark.parametrize(("asked", "approver", "may"), PERSONS)
def test_a_name_written_otherwise_is_the_same_person(asked: str, approver: str, may: bool) -> None:
    assert may_approve(asked, approver) is may
    assert may_approve(approver, asked) is may


@pytest.mark.parametrize("approver", ["tester/bob", "TESTER", "TESTER/bob", "te\uff53ter"])
async def test_an_adjustment_is_not_approved_under_a_name_written_otherwise(worker: FundWorker, approver: str) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    members = {"merchant": merchant, "amount": 5, "direction": "credit", "reason": "r", "person": "alice"}
    order = await worker.requested("adjustment", order_no="a", **members)
    answer = await worker.batcher.approve(order.id, approver)
    assert isinstance(answer, Refusal)
    assert answer.code is Code.APPROVAL_NEEDS_ANOTHER
    assert await worker.of(merchant) == (50, 0, 0)
    await worker.persons("bob")
    approved = await worker.batcher.approve(order.id, "person:bob")
    assert isinstance(approved, Taken)
    assert approved.order.state is State.POSTED
