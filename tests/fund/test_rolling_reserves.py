"""Rolling reserves: a part of each day's credits is held before money leaves the merchant, and released on its day."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.jobs.closing import Closer
from fundledger.fund.jobs.reserves import ReserveJob
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.change_requests import CloseRequest, FinalWithdrawal, MerchantPatch
from fundledger.fund.model.merchant import ROLLING, MerchantState
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.rolling import day_of_hold, part_of_day
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.merchants import Merchants
from tests.support.database import Databases
from tests.support.fund_books import check_shared
from tests.support.fund_worker import MODULE, FundWorker
from tests.support.running import RunningService

RULE: dict[str, Any] = {"rolling_basis_points": 1_000, "rolling_days": 30}


@pytest.fixture
async def own(postgres: Databases, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a worker with a fund database of its own, whose days the test closes."""
    dsn = await postgres.new_fund()
    async with FundWorker(dsn, service.base_url, service.fund_token) as worker:
        yield worker
    checks, _ = await check_shared(dsn, service.dsn, worker.salt)
    # The tests close days without their sums.
    told = [found for check in checks for found in check.findings if not found.subject.startswith("day ")]
    assert (told, [check.error for check in checks if check.error]) == ([], [])
    await postgres.drop(dsn)


async def reserve(worker: FundWorker, merchant: str) -> int:
    return await worker.balance(f"merchant:{merchant}:reserve")


async def withdraw(worker: FundWorker, merchant: str, number: str, amount: int | None) -> Any:
    members = {"all": True} if amount is None else {"amount": amount}
    return await worker.ask("withdrawal", merchant=merchant, order_no=number, channel=f"c-{worker.salt}", **members)


def state(answer: Any) -> State:
    assert isinstance(answer, Taken), answer
    return answer.order.state


def code(answer: Any) -> Code:
    assert isinstance(answer, Refusal), answer
    return answer.code


async def holds(worker: FundWorker, merchant: str) -> list[tuple[str, int]]:
    query = "SELECT order_no, amount FROM fund.orders WHERE merchant = $1 AND kind = 'reserve_hold' ORDER BY seq"
    return [tuple(row) for row in await worker.pool.fetch(query, merchant)]


async def close(worker: FundWorker, day: date) -> None:
    """Close a day, whose sums no test reads."""
    await worker.pool.execute("INSERT INTO fund.day_closings (day) VALUES ($1)", day)
    await worker.pool.execute("INSERT INTO fund.day_ends (day, orders) VALUES ($1, 0)", day)


def job(worker: FundWorker) -> ReserveJob:
    return ReserveJob(worker.pool, worker.batcher, worker.merchants, again_s=0.0)


def today() -> date:
    return datetime.now(UTC).date()


# --- Holds before withdrawals -----------------------------------------------------------------------------------------


async def test_a_withdrawal_holds_the_part_of_the_day_first(worker: FundWorker) -> None:
    merchant = await worker.merchant(**RULE)
    await worker.pay(merchant, "p", 1_005)
    assert await reserve(worker, merchant) == 0
    assert state(await withdraw(worker, merchant, "w1", 906)) is State.REFUSED
    assert (await reserve(worker, merchant), await worker.of(merchant)) == (100, (905, 0, 0))
    assert state(await withdraw(worker, merchant, "w2", 905)) is State.POSTED
    await worker.pay(merchant, "q", 500)
    answer = await withdraw(worker, merchant, "w3", None)
    # The part of the whole day is rounded down, not that of each payment.
    assert (answer.order.amount, await reserve(worker, merchant)) == (450, 150)
    assert await holds(worker, merchant) == [(f"auto-{today()}-1", 100), (f"auto-{today()}-2", 50)]
    hold = await worker.pool.fetchrow(
        "SELECT * FROM fund.orders WHERE merchant = $1 AND order_no LIKE 'auto%1'", merchant
    )
    assert (hold["settle_on"], hold["module"]) == (today() + timedelta(days=30), ROLLING)


async def test_only_credits_of_payments_are_held(worker: FundWorker) -> None:
    merchant, other = await worker.merchant(**RULE), await worker.merchant("other")
    await worker.pay(merchant, "now", 1_000)
    await worker.pay(merchant, "later", 2_000, settle="later")
    await worker.pay(merchant, "wrong", 4_000)
    await worker.done("reversal", merchant=merchant, order_no="r", of_kind="payment", of_order_no="wrong", reason="x")
    await worker.done("refund", merchant=merchant, order_no="back", payment_order_no="now", amount=100)
    await worker.done("top_up", merchant=merchant, order_no="t", amount=50, currency="CNY", channel=f"c-{worker.salt}")
    assert (
        state(await worker.ask("transfer", merchant=merchant, to_merchant=other, order_no="t", amount=1))
        is State.POSTED
    )
    assert await reserve(worker, merchant) == 100
    await worker.done("settlement", merchant=merchant, order_no="s", amount=1_500)
    assert (
        state(await worker.ask("transfer", merchant=merchant, to_merchant=other, order_no="u", amount=1))
        is State.POSTED
    )
    assert (await reserve(worker, merchant), await reserve(worker, other)) == (250, 0)


async def test_a_part_of_a_split_payment_is_held(worker: FundWorker) -> None:
    merchant, other = await worker.merchant(**RULE), await worker.merchant("other")
    parts = [{"merchant": merchant, "amount": 600, "commission": 100}, {"merchant": other, "amount": 400}]
    members = {"order_no": f"p-{worker.salt}", "amount": 1_000, "currency": "CNY", "channel": f"c-{worker.salt}"}
    request = msgspec.convert({**members, "parts": parts}, REQUESTS[Kind.SPLIT_PAYMENT])
    assert state(await worker.asked(request)) is State.POSTED
    answer = await withdraw(worker, merchant, "w", None)
    assert (answer.order.amount, await reserve(worker, merchant)) == (440, 60)


async def test_a_parked_payment_counts_on_the_day_of_its_release(worker: FundWorker) -> None:
    merchant = await worker.merchant(**RULE)
    available = f"merchant:{merchant}:available"
    await worker.accounts.freeze(available, "tests", "all")
    worker.days_back = 5
    parked = await worker.pay(merchant, "p", 1_000)
    assert parked.state is State.PARKED
    worker.days_back = 0
    await worker.accounts.unfreeze(available)
    await worker.batcher.retry(parked.id, MODULE)
    # In a day without other orders, the last order before the day is found by its time.
    assert state(await withdraw(worker, merchant, "w", 901)) is State.REFUSED
    assert await reserve(worker, merchant) == 100


async def test_a_balance_that_is_too_small_is_held_as_a_whole(worker: FundWorker) -> None:
    merchant = await worker.merchant(**RULE)
    await worker.pay(merchant, "p", 1_000)
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=940)
    assert state(await withdraw(worker, merchant, "w", 1)) is State.REFUSED
    assert (await reserve(worker, merchant), await worker.of(merchant)) == (60, (0, 0, 0))
    # Later credits complete the day.
    await worker.pay(merchant, "q", 100)
    assert state(await withdraw(worker, merchant, "w2", 50)) is State.POSTED
    assert (await reserve(worker, merchant), await worker.of(merchant)) == (110, (0, 0, 0))


async def test_the_rule_begins_on_the_day_of_its_approval_and_ends_with_null(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    patch = MerchantPatch(**RULE, why="new shop")
    await worker.approved(ChangeKind.MERCHANT, merchant, patch)
    found = await worker.merchants.read(merchant)
    assert found is not None and found.rolling is not None
    assert found.rolling.from_day == today()
    worker.days_back = -1
    assert state(await withdraw(worker, merchant, "w", 1)) is State.POSTED
    assert await reserve(worker, merchant) == 100
    await worker.approved(ChangeKind.MERCHANT, merchant, MerchantPatch(rolling_basis_points=None, rolling_days=None))
    found = await worker.merchants.read(merchant)
    assert found is not None and found.rolling is None
    await worker.pay(merchant, "q", 1_000)
    assert state(await withdraw(worker, merchant, "w2", 1_899)) is State.POSTED


async def test_days_before_the_rule_are_not_held(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    await worker.approved(ChangeKind.MERCHANT, merchant, MerchantPatch(**RULE))
    # In this worker it is still the day before the rule begins.
    worker.days_back = 1
    assert state(await withdraw(worker, merchant, "w", 1_000)) is State.POSTED
    assert await reserve(worker, merchant) == 0


@pytest.mark.parametrize(
    ("members", "missing"),
    [
        ({"rolling_days": 3}, "rolling_basis_points"),
        ({"rolling_basis_points": 3}, "rolling_days"),
        ({"rolling_days": None, "rolling_basis_points": 3}, "rolling_days"),
        ({"rolling_days": None}, "rolling_basis_points"),
    ],
)
def test_both_members_of_the_rule_are_needed(members: dict[str, Any], missing: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"^{missing} has no value"):
        msgspec.convert(members, MerchantPatch)


@pytest.mark.parametrize(
    ("base", "points", "part"), [(9, 1_000, 0), (10, 1_000, 1), (2**53 - 1, 10_000, 2**53 - 1), (19_999, 1, 1)]
)
def test_a_part_is_rounded_down(base: int, points: int, part: int) -> None:
    assert part_of_day(base, points) == part


@pytest.mark.parametrize("number", ["auto-2026-13-01-1", "auto-2026-03-02", "2026-03-02-1", "auto-2026-03-02-1x"])
def test_other_order_numbers_name_no_day(number: str) -> None:
    assert day_of_hold(number) is None
    assert day_of_hold("auto-2026-03-02-12") == date(2026, 3, 2)


async def test_concurrent_withdrawals_of_two_workers_hold_once(worker: FundWorker, service: RunningService) -> None:
    merchant = await worker.merchant(**RULE)
    await worker.pay(merchant, "p", 1_000)
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        asked = [withdraw((worker, other)[n % 2], merchant, str(n), 30) for n in range(32)]
        answers = await asyncio.gather(*asked)
    posted = sum(isinstance(each, Taken) and each.order.state is State.POSTED for each in answers)
    assert (await reserve(worker, merchant), posted) == (100, 30)


async def test_no_withdrawal_without_its_hold(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await worker.merchant(**RULE)
    await worker.pay(merchant, "p", 1_000)

    async def away(*_: Any) -> Any:
        raise GatewayFault("away")

    with monkeypatch.context() as patched:
        patched.setattr(worker.gateway, "balances", away)
        assert isinstance(await withdraw(worker, merchant, "w", 1), OrderFault)
    assert await holds(worker, merchant) == []
    assert (
        await worker.value("SELECT count(*) FROM fund.orders WHERE kind = 'withdrawal' AND merchant = $1", merchant)
        == 0
    )
    assert state(await withdraw(worker, merchant, "w", 1)) is State.POSTED


# --- The job --------------------------------------------------------------------------------------------------------


async def test_the_job_holds_for_days_that_have_ended(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    assert await job(own).run_some() == (0, 0.0)
    assert await reserve(own, merchant) == 0
    own.days_back = -1
    for is_closed in (False, True):
        if is_closed:
            await close(own, today())
        await job(own).run_some()
        assert (await reserve(own, merchant), len(await holds(own, merchant))) == (100, 1)


async def test_a_day_is_completed_for_a_week(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    await own.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=1_000)
    await close(own, today())
    await own.done("top_up", merchant=merchant, order_no="t", amount=30, currency="CNY", channel=f"c-{own.salt}")
    own.days_back = -7
    await job(own).run_some()
    assert await reserve(own, merchant) == 30
    await own.done("top_up", merchant=merchant, order_no="u", amount=500, currency="CNY", channel=f"c-{own.salt}")
    own.days_back = -8
    await job(own).run_some()
    assert await reserve(own, merchant) == 30
    own.days_back = -7
    await job(own).run_some()
    assert await reserve(own, merchant) == 100


async def released(worker: FundWorker, days: int) -> tuple[int, float]:
    return await job(worker).run_some(datetime.now(UTC) + timedelta(days=days))


async def test_a_hold_is_released_on_its_day_and_repays_the_debt(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    await withdraw(own, merchant, "w", None)
    await own.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=40)
    assert (await released(own, 29))[0] == 0
    assert await own.of(merchant) == (0, 0, 40)
    both = await asyncio.gather(released(own, 30), released(own, 30))
    assert sum(done for done, _ in both) in (1, 2)
    assert (await own.of(merchant), await reserve(own, merchant)) == ((60, 0, 0), 0)
    assert (await released(own, 31))[0] == 0
    # The hold was released, and still covers its day.
    await withdraw(own, merchant, "w2", 60)
    assert await reserve(own, merchant) == 0


async def test_a_refused_release_is_requested_again_with_another_number(own: FundWorker) -> None:
    merchant, other = await own.merchant(**RULE), await own.merchant("other", **RULE)
    for each in (merchant, other):
        await own.pay(each, "p", 1_000)
        await withdraw(own, each, "w", 1)
    available = f"merchant:{merchant}:available"
    await own.accounts.freeze(available, "tests", "all")
    assert (await released(own, 30))[0] == 2
    assert (await reserve(own, merchant), await reserve(own, other)) == (100, 0)
    await own.accounts.unfreeze(available)
    assert (await released(own, 30))[0] == 1
    assert await reserve(own, merchant) == 0


async def test_a_refused_release_pauses(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    await withdraw(own, merchant, "w", 1)
    await own.accounts.freeze(f"merchant:{merchant}:available", "tests", "all")
    kept, late = ReserveJob(own.pool, own.batcher, own.merchants, again_s=60.0), datetime.now(UTC) + timedelta(days=40)
    assert [await kept.run_some(late) for _ in range(3)] == [(1, 0.0), (0, 0.0), (0, 0.0)]


async def test_a_release_without_an_outcome_is_late(own: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await own.merchant()
    await own.pay(merchant, "p", 100)
    await own.done("reserve_hold", merchant=merchant, order_no="h", amount=10, release_on=today())

    async def fault(*_: Any) -> OrderFault:
        return OrderFault("away")

    with monkeypatch.context() as patched:
        patched.setattr(own.batcher, "ask", fault)
        done, lag_s = await job(own).run_some()
    midnight = datetime.combine(today(), datetime.min.time(), UTC)
    assert done == 0
    assert 0.0 <= (datetime.now(UTC) - midnight).total_seconds() - lag_s < 60.0
    assert await job(own).run_some() == (1, 0.0)


async def test_one_merchant_that_cannot_be_held_delays_no_other(
    own: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await own.merchant("a", **RULE), await own.merchant("b", **RULE)
    for each in (bad, good):
        await own.pay(each, "p", 1_000)
    await close(own, today())
    read = Merchants.get

    async def get(self: Merchants, id_: str) -> Any:
        if id_ == bad:
            raise Tampered("merchant", id_)
        return await read(self, id_)

    own.days_back = -1
    with monkeypatch.context() as patched:
        patched.setattr(Merchants, "get", get)
        await job(own).run_some()
    assert (await reserve(own, bad), await reserve(own, good)) == (0, 100)


async def test_a_merchant_that_closes_keeps_its_reserve_until_it_is_released(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    final = FinalWithdrawal(channel=f"c-{own.salt}")
    assert await own.changes.close(merchant, CloseRequest(reason="ends", final=final), MODULE) is True
    closer = Closer(own.pool, own.batcher, own.merchants, own.changes, again_s=0.0)
    paid: list[int] = []
    states: list[str] = []
    for _ in range(2):
        await closer.close_some()
        rows = await own.pool.fetch("SELECT id, amount FROM fund.orders WHERE kind = 'withdrawal' AND state = 'posted'")
        paid += [row["amount"] for row in rows]
        for row in rows:
            assert isinstance(await own.batcher.end(row["id"], "paid", None, None, MODULE), Taken)
        await closer.close_some()
        states.append(await own.value("SELECT state FROM fund.merchants WHERE id = $1", merchant))
        await released(own, 30)
    assert (paid, states) == ([900, 100], [MerchantState.CLOSING, MerchantState.CLOSED])


# --- Releases by hand -----------------------------------------------------------------------------------------------


async def release(worker: FundWorker, merchant: str, number: str, **members: Any) -> Any:
    return await worker.ask("reserve_release", merchant=merchant, order_no=number, **members)


async def test_an_amount_is_never_released_from_holds_that_have_a_day(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    for number, amount, day in (("dated", 100, today()), ("free", 50, None), ("named", 20, None)):
        await worker.done("reserve_hold", merchant=merchant, order_no=number, amount=amount, release_on=day)
    assert code(await release(worker, merchant, "r1", amount=71)) is Code.RESERVE_EXCEEDED
    assert state(await release(worker, merchant, "r2", amount=40)) is State.POSTED
    assert state(await release(worker, merchant, "r3", hold_order_no="named")) is State.POSTED
    assert code(await release(worker, merchant, "r4", amount=11)) is Code.RESERVE_EXCEEDED
    assert code(await release(worker, merchant, "r5", hold_order_no="free")) is Code.RESERVE_EXCEEDED
    named = await release(worker, merchant, "r6", hold_order_no="dated")
    assert (named.order.amount, named.order.state) == (100, State.POSTED)
    assert code(await release(worker, merchant, "r7", hold_order_no="dated")) is Code.RESERVE_HOLD_RELEASED
    assert code(await release(worker, merchant, "r8", hold_order_no="none")) is Code.ORDER_NOT_FOUND
    assert code(await release(worker, merchant, "r9", amount=11)) is Code.RESERVE_EXCEEDED
    assert state(await release(worker, merchant, "r10", amount=10)) is State.POSTED
    assert (await worker.of(merchant), await reserve(worker, merchant)) == ((1_000, 0, 0), 0)


async def test_concurrent_releases_of_a_hold_release_it_once(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    for number, day in (("dated", today()), ("free", None)):
        await worker.done("reserve_hold", merchant=merchant, order_no=number, amount=100, release_on=day)
    named = [release(worker, merchant, f"n{n}", hold_order_no="dated") for n in range(16)]
    by_amount = [release(worker, merchant, f"a{n}", amount=30) for n in range(16)]
    answers = await asyncio.gather(*named, *by_amount)
    posted = [isinstance(each, Taken) and each.order.state is State.POSTED for each in answers]
    assert (sum(posted[:16]), sum(posted[16:])) == (1, 3)
    assert await reserve(worker, merchant) == 10


async def test_a_refused_hold_cannot_be_released(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    answer = await worker.done("reserve_hold", merchant=merchant, order_no="h", amount=5, release_on=today())
    assert answer.state is State.REFUSED
    assert code(await release(worker, merchant, "r", hold_order_no="h")) is Code.ORDER_NOT_POSTED


@pytest.mark.parametrize(
    ("kind", "members", "message"),
    [
        ("reserve_release", {}, "amount is missing"),
        ("reserve_release", {"amount": 1, "hold_order_no": "h"}, "amount must be omitted"),
        ("reserve_hold", {"amount": 1, "release_on": "9999-12-01"}, "release_on must be within"),
        ("reserve_hold", {"amount": 1, "order_no": "auto-2026-03-02-1"}, "order_no"),
        ("reserve_release", {"amount": 1, "order_no": "auto-1"}, "order_no"),
    ],
)
def test_a_bad_reserve_is_named(kind: str, members: dict[str, Any], message: str) -> None:
    body = msgspec.json.encode({"merchant": "m", "order_no": "1", **members})
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(body, type=REQUESTS[Kind(kind)])
