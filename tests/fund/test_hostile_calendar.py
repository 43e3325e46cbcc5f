"""Due days, ends and the end of merchants: rows that were edited, races, and requests at the limits delay no other merchant."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs import closing
from fundledger.fund.jobs.closing import Closer
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.change import Change, ChangeKind
from fundledger.fund.model.change_requests import CloseRequest, FinalWithdrawal, Holiday, HolidaysRequest
from fundledger.fund.model.merchant import MerchantState
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.store.changes import Changes
from fundledger.fund.store.orders import read_order
from fundledger.reconciliation.fund.calendars import LATER_MAX, day_columns
from tests.fund.bank import Scripted
from tests.support.fund_books import check_shared
from tests.support.fund_worker import CHECKER, MODULE, FundWorker
from tests.support.running import RunningService

PACE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a worker whose rows the tests edit, so its books are not proved."""
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        yield worker


def closer(worker: FundWorker) -> Closer:
    return Closer(worker.pool, worker.batcher, worker.merchants, worker.changes, again_s=0.0)


async def state_of(worker: FundWorker, merchant: str) -> MerchantState:
    found = await worker.merchants.read(merchant)
    assert found is not None
    return found.state


async def told(worker: FundWorker, service: RunningService) -> list[str]:
    checks, _ = await check_shared(worker.dsn, service.dsn, worker.salt)
    found = [f"{c.name}: {f.subject}: expected {f.expected}, found {f.actual}" for c in checks for f in c.findings]
    return found + [f"{c.name}: {c.error}" for c in checks if c.error]


async def with_due(worker: FundWorker, name: str) -> str:
    """Return a merchant with a payment of 100 that has been due for days."""
    merchant = await worker.merchant(name, settlement="daily")
    worker.days_back = 3
    await worker.pay(merchant, "later", 100, settle="later")
    worker.days_back = 0
    return merchant


async def cut(*_: Any) -> None:
    raise GatewayFault("cut")


# --- States of merchants --------------------------------------------------------------------------------------------


async def split(worker: FundWorker) -> tuple[str, str]:
    a, b = await worker.merchant("a"), await worker.merchant("b")
    parts = [{"merchant": a, "amount": 600}, {"merchant": b, "amount": 400}]
    members = {"order_no": f"p-{worker.salt}", "amount": 1_000, "currency": "CNY", "channel": f"c-{worker.salt}"}
    request = msgspec.convert({**members, "parts": parts}, REQUESTS[Kind.SPLIT_PAYMENT])
    assert isinstance(await worker.asked(request), Taken)
    return a, b


async def refund_split(worker: FundWorker, number: str, **more: Any) -> Any:
    of = {"order_no": f"{number}-{worker.salt}", "of_order_no": f"p-{worker.salt}", **more}
    return await worker.asked(msgspec.convert(of, REQUESTS[Kind.SPLIT_REFUND]))


@pytest.mark.parametrize("which", [0, 1])
async def test_a_split_refund_takes_nothing_from_a_suspended_merchant(worker: FundWorker, which: int) -> None:
    merchants = await split(worker)
    await worker.changes.suspend(merchants[which], "fraud", "ann")
    no = await refund_split(worker, "r", amount=1_000)
    assert isinstance(no, Refusal)
    assert no.code is Code.MERCHANT_SUSPENDED
    assert [await worker.of(each) for each in merchants] == [(600, 0, 0), (400, 0, 0)]
    # Nothing is taken from a merchant that is not in the division.
    part = {"merchant": merchants[1 - which], "amount": 10}
    assert isinstance(await refund_split(worker, "s", parts=[part]), Taken)


async def test_a_split_refund_takes_nothing_from_a_merchant_that_was_edited(worker: FundWorker) -> None:
    a, _ = await split(worker)
    await worker.changes.suspend(a, "fraud", "ann")
    await worker.value("UPDATE fund.merchants SET state = 'open' WHERE id = $1", a)
    answer = await refund_split(worker, "r", amount=1_000)
    assert isinstance(answer, OrderFault)
    assert answer.tampered
    assert await worker.of(a) == (600, 0, 0)


async def test_a_suspended_merchant_is_not_closed(worker: FundWorker) -> None:
    """Its waiting payouts would be sent while it is being closed."""
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 1_000)
    await worker.done("withdrawal", merchant=merchant, order_no="fraud", amount=900, channel=channel)
    await worker.changes.suspend(merchant, "fraud", "ann")
    no = await worker.changes.close(merchant, CloseRequest("end", FinalWithdrawal(channel)), "bob")
    assert isinstance(no, Refusal)
    assert no.code is Code.MERCHANT_SUSPENDED
    bank = Scripted(Standing.PAID)
    await Payouts(worker.pool, worker.batcher, {channel: bank}, PACE).pay_out_some()
    assert bank.refs == []
    with pytest.raises(asyncpg.CheckViolationError, match="suspended to closing"):
        await worker.value("UPDATE fund.merchants SET state = 'closing' WHERE id = $1", merchant)


async def test_a_module_named_as_the_job_has_no_final_withdrawal(worker: FundWorker) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 1_000)
    await worker.changes.close(merchant, CloseRequest("end", FinalWithdrawal(channel)), "ann")
    members = {"merchant": merchant, "order_no": "x", "amount": 900, "channel": channel}
    no = await worker.ask("withdrawal", module="closing", **members)
    assert isinstance(no, Refusal)
    assert no.code is Code.MERCHANT_CLOSED


# --- The end of merchants -------------------------------------------------------------------------------------------


async def test_no_money_is_put_aside_while_the_accounts_are_closed(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.changes.close(merchant, CloseRequest("r", FinalWithdrawal(f"c-{worker.salt}")), "ann")
    real, seen = worker.gateway.close_account, []

    async def late(id_: str, reason: str) -> None:
        if not seen:
            seen.append(id_)
            await worker.pay(merchant, "late", 500)
            asked = worker.ask("reserve_hold", merchant=merchant, order_no="h", amount=500)
            seen.append(asyncio.create_task(asked))
            await asyncio.wait([seen[1]], timeout=0.2)
        await real(id_, reason)

    monkeypatch.setattr(worker.gateway, "close_account", late)
    await closer(worker).close_some()
    no = await seen[1]
    assert isinstance(no, Refusal)
    assert no.code is Code.MERCHANT_CLOSED
    assert await worker.balance(f"merchant:{merchant}:reserve") == 0
    assert await state_of(worker, merchant) is MerchantState.CLOSING
    assert await worker.of(merchant) == (500, 0, 0)


async def test_merchants_that_wait_delay_no_others(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "AT_ONCE", 2)
    names = [await worker.merchant(name) for name in "abc"]
    for merchant in names:
        await worker.changes.close(merchant, CloseRequest("r"), "ann")
    for merchant in names[:2]:
        await worker.pay(merchant, "p", 10)
    job = closer(worker)
    # The job pauses after a run in which no merchant was closed.
    assert [(await job.close_some())[0] for _ in range(3)] == [0, 1, 0]
    assert await state_of(worker, names[2]) is MerchantState.CLOSED


async def test_an_event_that_was_inserted_delays_one_merchant(worker: FundWorker) -> None:
    a, b = await worker.merchant("a"), await worker.merchant("b")
    for merchant in (a, b):
        await worker.changes.close(merchant, CloseRequest("r"), "ann")
    await worker.value(
        """INSERT INTO fund.merchant_events (merchant, version, what, body, by, at, mac_key, mac)
           VALUES ($1, 3, 'changed', '{}', 'x', now(), 1, 'x')""",
        a,
    )
    await closer(worker).close_some()
    assert (await state_of(worker, a), await state_of(worker, b)) == (MerchantState.CLOSING, MerchantState.CLOSED)


async def test_withdrawals_named_like_final_ones_do_not_block_the_end(worker: FundWorker) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 1_000)
    for number in ("auto-close-999999999", "auto-close-1", "auto-close-2"):
        # HTTP requests cannot have such a name.
        order = await worker.done("withdrawal", merchant=merchant, order_no=number, amount=1, channel=channel)
        await worker.batcher.end(order.id, "paid", number, None, "bank")
    with pytest.raises(msgspec.ValidationError):
        members = {"merchant": "m", "order_no": "auto-close-1", "amount": 1, "channel": "c"}
        msgspec.convert(members, REQUESTS[Kind.WITHDRAWAL])
    await worker.changes.close(merchant, CloseRequest("end", FinalWithdrawal(channel)), "ann")
    paying = Payouts(worker.pool, worker.batcher, {channel: Scripted(Standing.PAID)}, PACE)
    job = closer(worker)
    for _ in range(5):
        await job.close_some()
        await paying.pay_out_some()
    assert (await worker.of(merchant), await state_of(worker, merchant)) == ((0, 0, 0), MerchantState.CLOSED)


async def test_a_frozen_account_makes_no_final_settlements(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000, settle="later")
    await worker.changes.close(merchant, CloseRequest("r", FinalWithdrawal(f"c-{worker.salt}")), "ann")
    await worker.accounts.freeze(f"merchant:{merchant}:pending", "tests", "debits")
    for _ in range(3):
        await closer(worker).close_some()
    assert await worker.value("SELECT count(*) FROM fund.orders WHERE kind = 'settlement'") == 0
    await worker.accounts.unfreeze(f"merchant:{merchant}:pending")
    await closer(worker).close_some()
    assert await worker.value("SELECT count(*) FROM fund.orders WHERE kind = 'settlement'") == 1


async def test_others_are_paid_while_the_account_service_delays_the_end_of_a_merchant(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await worker.merchant("a"), await worker.merchant("b")
    for merchant in (a, b):
        await worker.pay(merchant, "p", 1_000)
    real, go, inside = worker.gateway.balances, asyncio.Event(), asyncio.Event()

    async def slow(ids: Any) -> Any:
        if any(id_.startswith(f"merchant:{a}:reserve") for id_ in ids):
            inside.set()
            await go.wait()
        return await real(ids)

    monkeypatch.setattr(worker.gateway, "balances", slow)
    task = asyncio.create_task(worker.changes.close(a, CloseRequest("r"), "ann"))
    await inside.wait()
    members = {"merchant": a, "amount": 5, "channel": f"c-{worker.salt}"}
    for number in range(3):
        assert isinstance(await worker.ask("withdrawal", order_no=f"w{number}", **members), Taken)
    await worker.pay(b, "now", 5)
    go.set()
    assert isinstance(await task, Refusal)


async def test_the_lock_of_a_merchant_is_bounded_while_its_accounts_are_closed(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.changes.close(merchant, CloseRequest("r"), "ann")

    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker.gateway, "close_account", hangs)
    monkeypatch.setattr("fundledger.fund.store.merchant_changes.LOCKED_S", 0.05)
    await closer(worker).close_some()
    assert await worker.changes.resume(merchant, "back", "ann") is True


# --- Withdrawals of all ---------------------------------------------------------------------------------------------


async def test_a_caller_gets_the_attempt_of_another_process(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    with monkeypatch.context() as killed:
        killed.setattr(worker.gateway, "post_vouchers", cut)
        killed.setattr(worker.batcher, "_wait_s", 0.05)
        await worker.ask("withdrawal", merchant=merchant, order_no="all", channel=f"c-{worker.salt}", all=True)
    await worker.debit(merchant, "slip", 300)
    id_ = await worker.value("SELECT id FROM fund.orders WHERE takes_all")
    read, inside, go, first = worker.posting.debitable, asyncio.Event(), asyncio.Event(), [1]

    async def slow(whose: str) -> int:
        found = await read(whose)
        if first:
            first.clear()
            inside.set()
            await go.wait()
        return found

    monkeypatch.setattr(worker.posting, "debitable", slow)
    late = asyncio.create_task(worker.batcher.retry(id_, "ops", "again"))
    await inside.wait()
    early = await worker.batcher.retry(id_, "ops", "again")
    go.set()
    answer, there = await late, await read_order(worker.pool, id_)
    assert isinstance(early, Taken)
    assert isinstance(answer, Taken)
    assert there is not None
    assert [each.state for each in (early.order, answer.order, there)] == [State.POSTED] * 3
    assert [each.amount for each in (early.order, answer.order, there)] == [700] * 3


# --- Settlements ----------------------------------------------------------------------------------------------------


async def test_an_automatic_settlement_that_was_reversed_waits_for_the_next_due_day(worker: FundWorker) -> None:
    merchant, settler = await with_due(worker, "a"), worker.settler()
    await settler.settle_some()
    number = await worker.value("SELECT order_no FROM fund.orders WHERE kind = 'settlement'")
    of = {"of_kind": "settlement", "of_order_no": number, "reason": "a mistake"}
    await worker.done("reversal", merchant=merchant, order_no="r", **of)
    for _ in range(2):
        await settler.settle_some()
        assert await worker.of(merchant) == (0, 100, 0)
    worker.days_back = 2
    await worker.pay(merchant, "next", 7, settle="later")
    await settler.settle_some()
    assert await worker.of(merchant) == (107, 0, 0)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE fund.orders SET order_no = 'auto-2026-02-30' WHERE kind = 'settlement'",
        "UPDATE fund.orders SET order_no = 'auto-0000-01-01' WHERE kind = 'settlement'",
    ],
)
async def test_a_settlement_that_was_edited_delays_no_other(worker: FundWorker, edit: str) -> None:
    a, b = await with_due(worker, "a"), await with_due(worker, "b")
    await worker.done("settlement", merchant=a, order_no="mine", amount=40)
    await worker.value(edit)
    await worker.settler().settle_some()
    assert await worker.of(b) == (100, 0, 0)


async def test_a_merchant_that_cannot_be_settled_delays_no_other(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await with_due(worker, "a"), await with_due(worker, "b")
    real = worker.batcher.ask

    async def ask(request: Any, module: str) -> Any:
        if request.merchant == a:
            raise OverflowError("date value out of range")
        return await real(request, module)

    monkeypatch.setattr(worker.batcher, "ask", ask)
    await worker.settler().settle_some()
    assert (await worker.of(a), await worker.of(b)) == ((0, 100, 0), (100, 0, 0))


async def test_a_day_that_no_calendar_has_is_refused(worker: FundWorker) -> None:
    for day in (date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 1)):
        for type_, members in (
            (REQUESTS[Kind.SETTLEMENT], {"merchant": "m", "order_no": "s", "day": day.isoformat()}),
            (HolidaysRequest, {"region": "CNY", "days": [{"day": day.isoformat()}]}),
        ):
            with pytest.raises(msgspec.ValidationError, match="day must be within 1970-01-01 to 9999-11-30"):
                msgspec.convert(members, type_)


# --- Ends and days --------------------------------------------------------------------------------------------------


async def test_a_closing_of_a_day_to_come_delays_no_end_and_is_found(
    worker: FundWorker, service: RunningService
) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 1_000)
    await worker.value("INSERT INTO fund.day_closings (day) VALUES ('9000-01-01')")
    await worker.value("INSERT INTO fund.day_closings (day) VALUES ('9000-01-02')")
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=10, channel=channel)
    await worker.batcher.end(order.id, "paid", "ref", None, "bank")
    assert await worker.value("SELECT day FROM fund.ends") == datetime.now(UTC).date()
    found = [line for line in await told(worker, service) if "9000" in line]
    assert found == [
        "fund_orders_consistent: day 9000-01-02: expected the day after the last closed day, found being closed"
    ]


async def test_verify_lists_no_days_of_a_far_future(worker: FundWorker) -> None:
    now = datetime.now(UTC)
    found, _ = day_columns(worker.macs.days, now - timedelta(days=3), datetime(9998, 12, 31, tzinfo=UTC))
    assert found[0] == str((now - timedelta(days=3)).date())
    assert len(found) == LATER_MAX.days + 5


async def test_clocks_that_differ_make_no_finding_about_holidays(worker: FundWorker, service: RunningService) -> None:
    late = Changes(worker.pool, worker.macs, worker.dual._appliers, now=lambda: datetime.now(UTC) - timedelta(hours=2))
    for changes, working in ((worker.dual, False), (late, True)):
        asked = HolidaysRequest("CNY", [Holiday(date(2030, 1, 5), working=working)])
        made = await changes.request(ChangeKind.HOLIDAYS, "CNY", asked, MODULE)
        assert isinstance(made, Change)
        assert isinstance(await changes.approve(made.id, CHECKER), Change)
    assert await told(worker, service) == []


async def test_a_calendar_ahead_of_utc_takes_the_first_day(fund_database: str, service: RunningService) -> None:
    worker = FundWorker(fund_database, service.base_url, service.fund_token)
    worker.calendar = ("Asia/Shanghai", time())
    async with worker:
        merchant = await with_due(worker, "a")
        no = await worker.ask("settlement", merchant=merchant, order_no="s", day=date(1970, 1, 1))
        assert isinstance(no, Refusal)
        assert no.code is Code.NOTHING_TO_SETTLE
